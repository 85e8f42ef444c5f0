"""Documents of a bundle that are written from configuration, images and evidence; imports `format` and `diff`."""
