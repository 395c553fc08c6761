"""Searches: ask/tell, state as plain data, no loop, no clock, no files."""
