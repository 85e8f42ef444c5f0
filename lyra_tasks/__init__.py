"""Invoke task collections that carry a container from a developer's machine to the edge of production."""

__version__ = "0.1.0"
