"""Images as bytes: `docker save` streams, archives, scans; may import config, records and the base modules."""
