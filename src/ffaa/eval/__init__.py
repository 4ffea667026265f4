"""Benchmark, metrics and tables."""
