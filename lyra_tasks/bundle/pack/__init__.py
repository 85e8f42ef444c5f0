"""`bundle.pack`: plan and create a pack, the part of a bundle to copy; imports `content`, `format` and `verify`."""
