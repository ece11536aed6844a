"""Learning algorithms: one file each, its equations on top."""
