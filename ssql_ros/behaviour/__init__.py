"""Behaviour policies: controllers with a stated support."""
