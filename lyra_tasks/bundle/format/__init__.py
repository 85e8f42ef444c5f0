"""Files of a bundle or pack, read and written; imports records, images and config, but no other part of `bundle`."""
