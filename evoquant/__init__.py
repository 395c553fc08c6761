"""evoquant: evolves mixed-precision bit allocations, and the heuristics behind them."""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than this module
if TYPE_CHECKING:
    from evoquant.api import (
        Job,
        Result,
        ask_tell,
        bound,
        load,
        optimize,
        pick,
        profile,
        resume,
        run,
        run_all,
        search_space,
        sweep,
    )

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
    "sweep",
]


if not TYPE_CHECKING:  # a type checker would take it for leave to spell a name in any way

    def __getattr__(name: str) -> object:
        """Forward to `evoquant.api` on first use, so that importing a part does not import the whole."""
        if name in __all__:
            from evoquant import api

            return getattr(api, name)
        raise AttributeError(f"module 'evoquant' has no attribute {name!r}")
