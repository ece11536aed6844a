"""What makes updates of torch networks fast: precision, one optimiser, compilation. Nothing outside knows how."""
