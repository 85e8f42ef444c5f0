"""The tables of `.lyra.toml` for what `docker compose config` says of a project."""
