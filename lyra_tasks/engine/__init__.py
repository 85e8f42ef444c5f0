"""Everything that talks to Docker; imports the base rooms and records, never a command's own package."""
