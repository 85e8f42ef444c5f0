"""Base images: resolving, locking, building and loading them. Imports the engine's `debian`, `client` and `objects`."""
