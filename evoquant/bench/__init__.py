"""Benchmarks: searches judged on networks of which every allocation has been measured."""
