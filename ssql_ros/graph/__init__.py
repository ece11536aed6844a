"""This package's nodes as processes and as launch descriptions."""
