"""What every suite is made of: clauses of a contract, and the error that names the one that is broken."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class ConformanceError(AssertionError):
    """An implementation breaks a contract; the message says which clause of it."""


def require(holds: object, clause: str) -> None:
    """Check that a clause holds; unlike an `assert` also under `python -O`.

    Raises:
        ConformanceError: with the clause.
    """
    if not holds:
        raise ConformanceError(clause)


def run_checks(checks: tuple[Callable[..., None], ...], *arguments: Any) -> None:
    """Run each check; whatever one raises says in a note what was being checked: its docstring's first line."""
    for check in checks:
        try:
            check(*arguments)
        except Exception as error:
            clause = (check.__doc__ or "").strip().splitlines()[:1]
            error.add_note(f"evoquant.testing, {check.__name__}: {''.join(clause)}")
            raise


@contextmanager
def no_global_randomness(who: str) -> Iterator[None]:
    """Check that a block draws nothing from the streams that a whole process shares, and leaves them as they were.

    Raises:
        ConformanceError: naming `who` and the stream.
    """
    before, before_numpy = random.getstate(), _numpy_state()
    yield
    remedy = "take a generator from evoquant.rng.generator_for(seed, generation, purpose)"
    require(random.getstate() == before, f"{who} draws from, or seeds, the global `random` module; {remedy}")
    require(_numpy_state() == before_numpy, f"{who} draws from, or seeds, the global `numpy.random`; {remedy}")


def _numpy_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # looked at, never drawn from
    return (name, np.asarray(keys).tobytes(), *rest)
