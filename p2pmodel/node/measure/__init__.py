"""Benchmark and monitor the mirrors."""
