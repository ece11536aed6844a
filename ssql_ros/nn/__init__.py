"""Networks in torch: layers, distributions, checkpoints, and whatever makes them fast."""
