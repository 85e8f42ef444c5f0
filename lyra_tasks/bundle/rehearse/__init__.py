"""`bundle.rehearse`: receive and start a bundle on a throwaway engine; imports `content`, `format` and `verify`."""
