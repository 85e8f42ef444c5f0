"""Third-party images: compared with the lock file, and fetched unchanged; may import the engine and `images.stream`."""
