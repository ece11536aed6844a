"""Learners: one file per algorithm, with shared networks, rollouts and evaluation."""
