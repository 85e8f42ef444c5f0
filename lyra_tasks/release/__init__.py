"""release: one annotated tag on a tested commit."""
