"""Create a first configuration from Dockerfiles and a compose file. May import config, dockerfile and base modules."""
