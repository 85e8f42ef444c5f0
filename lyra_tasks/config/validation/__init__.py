"""What is checked in a configuration and how problems are reported. May import config.models and the base modules."""
