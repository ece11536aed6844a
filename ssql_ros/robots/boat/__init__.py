"""The boat: a point in a current, with two rocks."""
