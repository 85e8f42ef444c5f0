"""The `release` command: one annotated tag on a tested commit; may import the engine, rules and everything below."""
