"""`promote`: plan, create and push a bundle; imports `content`, `format`, `verify` and the engine."""
