"""Image archives: writing, reading, verifying; may import images.oci, images.stream and references."""
