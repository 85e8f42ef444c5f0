"""overview: what there is and what happened, told without changing anything."""
