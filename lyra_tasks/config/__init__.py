"""The configuration `.lyra.toml`: models, loading, validation. May import the base modules only."""
