"""Image archives: writing, reading, verifying; may import images.oci, images.stream, console and references."""
