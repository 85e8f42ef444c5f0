"""An environment while it runs (test or development): may import rules, engine, config and records, but no step."""
