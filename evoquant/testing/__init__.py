"""Conformance suites, shipped, so that plug-ins outside the project can run them: one function for each protocol.

    from evoquant.testing import check_search

    def test_my_search_keeps_the_protocol():
        check_search(MySearch)

Each raises `ConformanceError`, an `AssertionError`, whose message is the clause that is broken.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than this module
if TYPE_CHECKING:
    from typing import Any

    from evoquant.testing.suites import (
        ConformanceError,
        check_cost,
        check_estimator,
        check_executor,
        check_exporter,
        check_genome,
        check_objective,
        check_rounding,
        check_search,
        check_space,
        check_storage,
    )

__all__ = [
    "ConformanceError",
    "check_cost",
    "check_estimator",
    "check_executor",
    "check_exporter",
    "check_genome",
    "check_objective",
    "check_rounding",
    "check_search",
    "check_space",
    "check_storage",
]


def __getattr__(name: str) -> Any:
    """Import the suites on first use: workers import this package for the factories of one of them alone."""
    if name in __all__:
        from evoquant.testing import suites

        return getattr(suites, name)
    raise AttributeError(f"module 'evoquant.testing' has no attribute {name!r}")
