"""Create, list, inspect and remove objects of an engine; imports the client, the sandbox and records."""
