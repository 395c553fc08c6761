"""Heuristics as immutable data that turn any problem into an allocation."""
