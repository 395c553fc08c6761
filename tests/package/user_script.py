"""What a user writes, for mypy --strict against the installed package: types are seen, and wrong ones refused.

Under --strict an ignored line without a fault is a fault itself: were evoquant untyped, each of those below were one.
"""

from __future__ import annotations

from pathlib import Path

import evoquant
from evoquant.errors import InputError
from evoquant.search.batch import CandidateBatch
from evoquant.search.protocol import Search


def widths_of(folder: Path) -> dict[str, str]:
    """A campaign, from a file."""
    try:
        run = evoquant.run("campaign.yaml", out=folder, overrides=["stop.generations=3"])
    except InputError:
        return {}
    return {"champion": run.champion.genome.text} if run.champion else {}


def own_loop() -> list[str]:
    """Ask and tell."""
    search = evoquant.ask_tell("genetic", evoquant.search_space("rule", "seed/train"), seed=0, population=20)
    candidates = search.ask()
    search.tell([0.5 for _ in candidates])
    return [genome.text for genome in candidates]


def next_of(search: Search) -> CandidateBatch:
    """A protocol."""
    return search.ask()


def on_a_model(path: Path) -> evoquant.Result:
    """A model of one's own."""
    result = evoquant.optimize(path, None, floor=0.95, budget=80, seed=0)
    folder: Path = result.path
    return result if folder.is_dir() else evoquant.optimize(path, None)


evoquant.optimise("model.onnx", None)  # type: ignore[attr-defined]
evoquant.run("campaign.yaml", output="runs")  # type: ignore[call-arg]
evoquant.optimize("model.onnx", None, floor="high")  # type: ignore[arg-type]
number: int = evoquant.load("champion.json").genome.text  # type: ignore[assignment]
