"""A frozen table: a real network of which every allocation has been measured, so that its best one is known."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bench.samples import SPLITS
from evoquant.bench.settings import files_digest
from evoquant.bench.shipped import DATA, MENU, RECIPES, known_table, profile_path, read_arrays, table_path
from evoquant.errors import InputError
from evoquant.profiles.model import load_profile
from evoquant.quantization.precision import Menu
from evoquant.scoring.objective import Cliff, Objective, Scores, score
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.profiles.model import ModelProfile
    from evoquant.scoring.problem import Problem

NAMES = tuple(RECIPES)
OBJECTIVE = Cliff()


@dataclass(frozen=True, eq=False)
class Table:
    """Counts of every allocation; a row's number in base P reads its widths, the first unit's digit first.

    Attributes:
        name: of the table.
        profile: of the network.
        problem: the profile compiled for the menu of P widths.
        right: split → `(P^units,)` samples classified correctly.
        gained: `(P^units,)` calibration samples classified correctly that the FP32 network gets wrong.
        divergence: `(P^units,)` mean KL(FP32 ‖ quantized) on calibration, in nats.
        reference: split → samples that the FP32 network gets right.
        samples: split → how many there are.
    """

    name: str
    profile: ModelProfile
    problem: Problem
    right: dict[str, NDArray[np.uint16]]
    gained: NDArray[np.uint16]
    divergence: NDArray[np.float32]
    reference: dict[str, int]
    samples: dict[str, int]

    def __len__(self) -> int:
        return len(self.gained)

    def rows(self, allocations: NDArray[np.int8]) -> NDArray[np.int64]:
        """`(n,)` rows of `(n, units)` allocations."""
        units = len(self.problem.units)
        digits = len(self.problem.menu) ** np.arange(units - 1, -1, -1, dtype=np.int64)
        return allocations.astype(np.int64) @ digits

    def allocations(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """`(n, units)` menu indices of `(n,)` rows."""
        shape = (len(self.problem.menu),) * len(self.problem.units)
        return np.stack(np.unravel_index(rows, shape), axis=1).astype(np.int8)

    def retention(self, rows: NDArray[np.int64], split: str = "calibration") -> NDArray[np.float64]:
        """`(n,)` accuracy / FP32 accuracy."""
        return self.right[split][rows] / float(self.reference[split])

    def standard_error(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(n,)` of retention on calibration, by the delta method for two paired counts, as `paired_retention` has it.

        Of scores that are 0 or 1 the influence of a sample is (q − R · r) / r̄, so that counts are enough.
        """
        n, reference = self.samples["calibration"], self.reference["calibration"]
        right = self.right["calibration"][rows].astype(np.float64)
        ratio = right / reference
        both = right - self.gained[rows]
        squares = right - 2.0 * ratio * both + ratio**2 * reference
        return np.sqrt(squares / (n - 1) / n) / (reference / n)

    def score(self, rows: NDArray[np.int64], split: str = "calibration", objective: Objective = OBJECTIVE) -> Scores:
        """Fitness and all else of `(n,)` rows on a split."""
        costs = cost_sums(self.problem, self.allocations(rows))
        return score(objective, (self.problem,), self.retention(rows, split)[:, None], costs[:, None])

    @functools.cached_property
    def fitness(self) -> NDArray[np.float64]:
        """`(P^units,)` of every allocation on calibration, by the published objective."""
        return self.score(np.arange(len(self))).fitness

    @functools.cached_property
    def optimum(self) -> int:
        """The row of the best of all allocations on calibration; of equals the first."""
        return int(self.fitness.argmax())


def table_settings(name: str) -> dict[str, str]:
    """Which table it is: its name, and the digest of its files."""
    return {"table": name, "files": files_digest(profile_path(known_table(name)), table_path(name))}


@functools.cache
def load_table(name: str, folder: Path = DATA) -> Table:
    """A shipped table, or one that `rebuild` wrote into `folder`.

    Raises:
        InputError: no such table, or a file is missing or damaged.
    """
    path = table_path(known_table(name), folder)
    profile = load_profile(profile_path(name, folder))
    problem = compile_problem(profile, Menu.parse(MENU))
    arrays = read_arrays(path)
    rows = len(MENU) ** len(problem.units)
    if any(len(arrays[key]) != rows for key in (*SPLITS, "gained", "divergence")):
        raise InputError(f"{path}: {len(problem.units)} units of {len(MENU)} widths have {rows} allocations; mixed up?")
    for array in arrays.values():
        array.setflags(write=False)
    return Table(
        name=name,
        profile=profile,
        problem=problem,
        right={split: arrays[split].astype(np.uint16, copy=False) for split in SPLITS},
        gained=arrays["gained"].astype(np.uint16, copy=False),
        divergence=arrays["divergence"].astype(np.float32),
        reference=dict(zip(SPLITS, arrays["reference"].tolist(), strict=True)),
        samples=dict(zip(SPLITS, arrays["samples"].tolist(), strict=True)),
    )
