"""Debian packages for bases and the sandbox engine. Imports only the base modules."""
