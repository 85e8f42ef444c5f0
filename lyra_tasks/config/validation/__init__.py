"""Checks of a configuration, and its problems as messages; imports `config.models` and the base modules."""
