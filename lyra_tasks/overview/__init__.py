"""Looking at a project without changing it."""
