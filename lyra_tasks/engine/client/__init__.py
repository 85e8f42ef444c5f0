"""Connections to an engine, and reading what its containers print; imports the sandbox and the base rooms only."""
