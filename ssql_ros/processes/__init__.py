"""Processes: how they end, what they lack, and how their products run. Imports nothing of this package."""
