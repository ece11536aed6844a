"""What makes updates of torch networks fast: their precision, one optimiser, and compilation. Nothing outside knows how."""
