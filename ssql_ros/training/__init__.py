"""Training: one run from its plan to its bundle, in one folder on disk."""
