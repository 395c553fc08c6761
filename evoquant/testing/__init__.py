"""Conformance suites, shipped, so that plug-ins outside the project can run them: one function for each protocol.

from evoquant.testing import check_search

def test_conforms():
    check_search(MySearch)        # raises ConformanceError with the clause that is broken
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than this module
if TYPE_CHECKING:
    from typing import Any

    from evoquant.testing.clauses import ConformanceError
    from evoquant.testing.executors import check_executor
    from evoquant.testing.searches import check_search
    from evoquant.testing.spaces import check_space

__all__ = ["ConformanceError", "check_executor", "check_search", "check_space"]

_HOME = {
    "ConformanceError": "clauses",
    "check_executor": "executors",
    "check_search": "searches",
    "check_space": "spaces",
}


def __getattr__(name: str) -> Any:
    """Import a suite on first use: workers import this package for the factories of one of them alone."""
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"evoquant.testing.{_HOME[name]}"), name)
    raise AttributeError(f"module 'evoquant.testing' has no attribute {name!r}")
