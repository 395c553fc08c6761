"""evoquant: evolves mixed-precision bit allocations, and the heuristics behind them."""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than this module
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Job",
    "Result",
    "ask_tell",
    "bound",
    "load",
    "optimize",
    "pick",
    "profile",
    "resume",
    "run",
    "run_all",
    "search_space",
]


def __getattr__(name: str) -> Any:
    """Forward to `evoquant.api` on first use, so that importing a part does not import the whole."""
    if name in __all__:
        from evoquant import api

        return getattr(api, name)
    raise AttributeError(f"module 'evoquant' has no attribute {name!r}")
