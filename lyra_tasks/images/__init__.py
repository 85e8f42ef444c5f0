"""Images as bytes: what an engine saves, the archive that travels, and reading it back."""
