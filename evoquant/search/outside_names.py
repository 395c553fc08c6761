"""Classes of other libraries: by which names a config has them, where they are, what their constructors take."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError, MissingExtraError, quoted, suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

NONCONVEX, MOO = "pymoo.algorithms.soo.nonconvex.", "pymoo.algorithms.moo."
BY_FITNESS = {
    **{name: NONCONVEX + name.lower() for name in ("GA", "DE", "PSO", "ES", "CMAES", "SRES", "ISRES", "BRKGA", "NRBO")},
    **{"BIPOPCMAES": NONCONVEX + "cmaes", "EPPSO": NONCONVEX + "pso_ep", "G3PCX": NONCONVEX + "g3pcx"},
    **{
        "NelderMead": NONCONVEX + "nelder",
        "PatternSearch": NONCONVEX + "pattern",
        "MixedVariableGA": "pymoo.core.mixed",
    },
}
"""Algorithms of pymoo with one objective → module."""
FRONTS = {
    **{name: MOO + name.lower() for name in ("NSGA2", "NSGA3", "UNSGA3", "MOEAD", "SPEA2", "CTAEA", "GDE3", "CMOPSO")},
    **{"SMSEMOA": MOO + "sms", "AGEMOEA": MOO + "age", "AGEMOEA2": MOO + "age2", "MOPSO_CD": MOO + "mopso_cd"},
}
"""Algorithms of pymoo with several objectives → module."""
SAMPLERS = dict.fromkeys(
    ("TPESampler", "CmaEsSampler", "GPSampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler", "RandomSampler"),
    "optuna.samplers",
)
EMITTERS = dict.fromkeys(
    ("EvolutionStrategyEmitter", "GaussianEmitter", "IsoLineEmitter", "GeneticAlgorithmEmitter"), "ribs.emitters"
)


def found_class(chosen: str | type, table: Mapping[str, str], key: str, kind: str) -> Any:
    """A class of a library by its name in a table, name → module; a class as it is.

    Raises:
        InputError: no such name.
        MissingExtraError: the library is not installed.
    """
    if not isinstance(chosen, str):
        return chosen
    if chosen not in table:
        raise InputError(
            f"search.{key}: nothing is called {quoted(chosen)}, nor is it a class of your own as module:Class."
            f"{suggestion(chosen, table)}"
        )
    try:
        return getattr(importlib.import_module(table[chosen]), chosen)
    except ImportError as error:
        raise MissingExtraError(f"search.kind: {kind}", str(error.name or kind), kind) from None


def name_of(chosen: str | type) -> str:
    """As a config would have it."""
    return chosen if isinstance(chosen, str) else f"{chosen.__module__}:{chosen.__qualname__}"


def accepted(made: type) -> set[str]:
    """Names that a class's constructor takes, by itself or for a class below it."""
    import inspect

    return {name for base in made.__mro__ for name in inspect.signature(base.__init__).parameters}  # type: ignore[misc]


def check_known(made: type, options: Mapping[str, Any], kind: str) -> None:
    """Refuse an option that a class with `**kwargs` would pass over in silence.

    Raises:
        InputError: neither the class nor another of its module takes it.
    """
    parts = [one for one in vars(sys.modules[made.__module__]).values() if isinstance(one, type)]
    known = {name for one in (made, *parts) for name in accepted(one)} - {"self", "args", "kwargs"}
    for key in options:
        if key not in known:
            raise InputError(
                f"search.options: {kind}'s {made.__name__} has no option {quoted(key)}.{suggestion(key, known)}"
            )
