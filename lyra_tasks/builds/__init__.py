"""The `build` command: one `buildx bake` for all images; may import the engine, rules and everything below."""
