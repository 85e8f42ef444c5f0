"""The promotion bundle: what travels to Proxima."""
