"""Benchmarks: one function a subject, each returns its figures."""
