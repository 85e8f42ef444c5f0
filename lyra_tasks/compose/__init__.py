"""Read a Compose project into the tables of `.lyra.toml`. May import base modules; knows nothing of `config`."""
