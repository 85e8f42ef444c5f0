"""clean: what is ours and ephemeral is removed, and the host is shown to be clean."""
