"""What must hold before a step may be taken."""
