"""Scanning images for rules and SBOMs; may import images.oci, images.stream and records."""
