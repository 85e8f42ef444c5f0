"""Streams of image layers: tar, compression, `docker save` and the layer cache. Imports `images.oci`, `images.scan`."""
