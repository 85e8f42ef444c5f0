"""Streams of image layers: tar, compression, `docker save`, packages and the layer cache. Imports `images.oci`."""
