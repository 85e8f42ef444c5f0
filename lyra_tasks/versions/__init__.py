"""Git state, versions and changelogs of a checkout; may import configuration and base modules only."""
