"""Networks in torch: layers, distributions, checkpoints, and whatever makes their updates fast."""
