"""What `import evoquant` offers: optimize a model in memory; run, resume and load campaigns; profiles and bounds.

The command line is a thin layer over these functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.api.campaigns import Job, Run, Silent, begin, pick, resume, run, run_all
from evoquant.campaign.finished import gated, resolved_config

if TYPE_CHECKING:
    from evoquant.api.ask_loop import AskTell
    from evoquant.api.ask_space import SearchSpace, search_space
    from evoquant.api.asktell import ask_tell
    from evoquant.api.loaded import load
    from evoquant.api.memory import Result, optimize
    from evoquant.api.networks import bound, profile_network, score
    from evoquant.api.profiling import profile
    from evoquant.api.sweeps import sweep
    from evoquant.export.deploy import deploy, recipe, verify

__all__ = [
    "AskTell",
    "Job",
    "Result",
    "Run",
    "SearchSpace",
    "Silent",
    "ask_tell",
    "begin",
    "bound",
    "deploy",
    "gated",
    "load",
    "optimize",
    "pick",
    "profile",
    "profile_network",
    "recipe",
    "resolved_config",
    "resume",
    "run",
    "run_all",
    "score",
    "search_space",
    "sweep",
    "verify",
]


def __getattr__(name: str) -> Any:
    """What most campaigns never need, on first use."""
    if name in ("deploy", "recipe", "verify"):
        from evoquant.export import deploy

        return getattr(deploy, name)
    if name in ("bound", "profile_network", "score"):
        from evoquant.api import networks

        return getattr(networks, name)
    if name in ("AskTell", "SearchSpace", "ask_tell", "search_space"):
        from evoquant.api import asktell

        return getattr(asktell, name)
    if name == "load":
        from evoquant.api import loaded

        return loaded.load
    if name == "profile":
        from evoquant.api import profiling

        return profiling.profile
    if name == "sweep":
        from evoquant.api import sweeps

        return sweeps.sweep
    if name in ("Result", "optimize"):
        from evoquant.api import memory

        return getattr(memory, name)
    raise AttributeError(f"module 'evoquant.api' has no attribute {name!r}")
