"""build: images from Dockerfiles, in one parallel `buildx bake`."""
