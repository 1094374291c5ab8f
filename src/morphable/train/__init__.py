"""Training: one loop for every family, exact resume, and the run folder."""
