"""Images as bytes: `docker save` streams, archives, scans, third-party images; may import the engine."""
