"""The first day: a configuration written from what a repository has already."""
