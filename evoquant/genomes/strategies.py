"""The published strategies and the plain baselines, by name.

All that a rule can say is a rule; what does not fit one is a plain function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import GenomeError, quoted, suggestion
from evoquant.genomes.rule import Rule, Rung

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome
    from evoquant.scoring.problem import Problem

_NORM_AND_CLASSIFIER = frozenset({"LayerNorm", "Classifier"})


@dataclass(frozen=True)
class Strategy:
    """A baseline that is a plain function rather than a rule; it is data by its name alone."""

    name: str
    text: str
    function: Callable[[Problem], NDArray[np.int8]]

    @property
    def parts(self) -> int:
        """0: functions do not take part in a search."""
        return 0

    def allocate(self, problem: Problem) -> NDArray[np.int8]:
        """`(units,)` menu indices, each allowed."""
        return problem.repair_one(self.function(problem))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the name."""
        return {"kind": "strategy", "name": self.name}


def _hybrid(problem: Problem) -> NDArray[np.int8]:
    """Gradient sensitivity, raised by 0.2 at the 10% edges, against two thresholds; norms and heads at FP16."""
    width = problem.menu.resolve
    position = problem.position
    sensitivity = problem.signal("gradient_sensitivity") + 0.2 * ((position < 0.1) | (position > 0.9))
    allocation = np.where(
        sensitivity > 0.7, width("FP16"), np.where(sensitivity > 0.3, width("INT8"), width("INT4"))
    ).astype(np.int8)
    embeddings = np.flatnonzero(problem.types == "Embedding")
    protected = np.isin(problem.types, sorted(_NORM_AND_CLASSIFIER))
    protected[embeddings[:1]] = True
    allocation[protected] = width("FP16")
    return allocation


def _pareto(problem: Problem) -> NDArray[np.int8]:
    """Per layer the width with the largest ½·ln(32/bits) + ½·max(ln(1 − s), −10)."""
    losses = np.stack([problem.signal(f"loss:{p.name}") for p in problem.menu], axis=1)
    kept = np.log(np.maximum(1.0 - losses, np.exp(-10.0)))
    gain = np.log(32.0 / np.array([p.code_bits for p in problem.menu], dtype=np.float64))
    return np.asarray(np.argmax(0.5 * gain + 0.5 * kept, axis=1), dtype=np.int8)


def _uniform(width: str) -> Rule:
    return Rule(otherwise=width)


STRATEGIES: dict[str, Genome] = {
    "mixed_fp16_int8": Rule("INT8", edges=0.25, edge_width="FP16"),
    "gradient_weighted": Rule("INT4", (Rung("gradient_sensitivity", 0.3, "FP16"),)),
    "sensitivity_0005": Rule(
        "INT8", (Rung("loss:INT8", 0.0005, "FP32"),), protected=_NORM_AND_CLASSIFIER, protected_width="FP16"
    ),
    "all_fp16": _uniform("FP16"),
    "fp32_edges_push_95": Rule(
        "INT8", edges=0.25, edge_width="FP32", protected=_NORM_AND_CLASSIFIER, protected_width="FP16"
    ),
    "sensitivity_fp16_001": Rule(
        "FP16",
        (Rung("loss:FP16", 0.001, "FP32"),),
        edges=0.10,
        edge_width="FP32",
        protected=_NORM_AND_CLASSIFIER,
        protected_width="FP32",
    ),
    "wider_fp16_zone": Rule(
        "FP16",
        (Rung("loss:FP16", 0.001, "FP32"),),
        edges=0.075,
        edge_width="FP32",
        protected=_NORM_AND_CLASSIFIER,
        protected_width="FP32",
    ),
    # "The narrowest width with s ≤ 0.02": s never grows with the width, so the ladder asks from the widest down.
    "greedy_sensitivity": Rule(
        "INT2",
        (
            Rung("loss:FP16", 0.02, "FP32"),
            Rung("loss:INT8", 0.02, "FP16"),
            Rung("loss:INT4", 0.02, "INT8"),
            Rung("loss:INT2", 0.02, "INT4"),
        ),
    ),
    "layer_type_aware": Rule(
        "INT8", protected=frozenset({"Embedding", "LayerNorm", "Classifier"}), protected_width="FP16"
    ),
    "uniform_int8": _uniform("INT8"),
    # Narrower than the distance between two layers: only the first and the last position lie inside.
    "first_last_fp16": Rule("INT8", edges=1e-6, edge_width="FP16"),
    "sensitivity_based": Rule(
        "INT4", (Rung("gradient_sensitivity", 0.8, "FP16"), Rung("gradient_sensitivity", 0.5, "INT8"))
    ),
    "position_aware": Rule("INT8", edges=0.1, edge_width="FP16"),
    "hybrid": Strategy(
        "hybrid",
        "norms, classifier, first embedding FP16; g (+0.2 at the 10% edges) > 0.7 FP16, > 0.3 INT8; else INT4",
        _hybrid,
    ),
    "pareto": Strategy("pareto", "argmax of ½·ln(32/bits) + ½·max(ln(1 − s), −10)", _pareto),
    "uniform_int2": _uniform("INT2"),
    "uniform_int4": _uniform("INT4"),
    "uniform_fp32": _uniform("FP32"),
}
CHAMPION = "wider_fp16_zone"


def strategy(name: str) -> Genome:
    """The baseline of that name.

    Raises:
        GenomeError: no such name.
    """
    if name not in STRATEGIES:
        raise GenomeError(f"no strategy is called {quoted(name)}.{suggestion(name, STRATEGIES)}")
    return STRATEGIES[name]


def strategy_rule(name: str) -> Rule:
    """The baseline of that name where it is a rule.

    Raises:
        GenomeError: no such name, or it is a plain function.
    """
    found = strategy(name)
    if not isinstance(found, Rule):
        raise GenomeError(f"strategy {name!r} is a plain function, not a rule; choose another.")
    return found
