"""`verify`: check every byte of a bundle, a pack, a part of one or an archive; imports `format` only."""
