"""The development environment: `create` and `dev.*`. Imports the lab and everything below it, no other step."""
