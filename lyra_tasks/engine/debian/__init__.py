"""Debian packages for bases and the private engine. Imports only the base modules."""
