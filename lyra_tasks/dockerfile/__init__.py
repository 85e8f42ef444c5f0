"""Read Dockerfiles, the inputs of a build and the lock file; may import configuration and base modules only."""
