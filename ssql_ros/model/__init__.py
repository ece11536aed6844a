"""What a robot is served: the bundle, its critic and its policy. NumPy and onnxruntime alone."""
