"""Builds and exports with Docker Buildx through python-on-whales; imports `engine.client` and `engine.objects`."""
