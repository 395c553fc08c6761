"""Conformance suites, shipped, so that plug-ins outside the project can run them."""
