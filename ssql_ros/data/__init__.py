"""Data to learn from: transitions, data sets on disk, replay, rewards, and views of a log."""
