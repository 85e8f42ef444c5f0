"""Remove the project's objects and verify that none is left: `clean`. Imports the engine and below, no other step."""
