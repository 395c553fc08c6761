"""Consumers: what runs deployed models for users, each a script for a fresh process.

    python -m evoquant.export.consumers.onnxruntime_run JOB.json

The scripts know nothing of how the model was made: they import NumPy and the consumer, load the files that the job
names, run the batches, and write down what came out and how long it took. `launch` is the other side, which starts
them. A job is plain data:

    models    pairs of name and file; run in this order
    inputs    .npz with input j of batch i as `i.j`
    names     of the inputs
    batches   how many of them are run
    outputs   names of the outputs
    folder    where NAME.npz goes, output j of batch i as `i.j`, and answer.json
    repeats   timed runs of the first batch; 0 for none
    network   how `evoquant.models.recreate` makes a PyTorch network, for files that hold but its state; else null
    generate  of a language model, tokens of the first sample that are given and how many are to follow; else null
"""

from __future__ import annotations

import json
import math
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from evoquant.models.generating import continued, tokens_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

ANSWER = "answer.json"
LEAST_LOG = -87.0
"""Smallest log-probability that is told apart: below it probabilities in float32 lose digits, then are 0."""

WARM_UP = 3
LEAST_SECONDS = 0.01  # of a timed repeat: a small network is run several times in it
MOST_PASSES = 1000

Feeds: TypeAlias = "Mapping[str, NDArray[np.generic]]"


@dataclass(frozen=True)
class Loaded:
    """A model that a consumer has loaded.

    Attributes:
        run: input name → array, to the outputs in the job's order; inputs that the model lacks are left out.
        facts: plain data about how it is run.
        generate: (tokens, count) → the most likely tokens to follow, by the consumer's own means; None where it has
            none.
    """

    run: Callable[[Feeds], list[NDArray[np.generic]]]
    facts: Mapping[str, Any]
    generate: Callable[[list[int], int], list[int]] | None = None


Load: TypeAlias = Callable[[Path, Mapping[str, Any], Path], Loaded]
"""(model file, the job, folder for files of the consumer's own) → the model, loaded."""


def serve(arguments: Sequence[str], version: str, load: Load) -> int:
    """Do the job of `arguments[1]` and write its answer; the exit code, 1 where a model cannot be loaded or run.

    What went wrong goes to standard error, the model's name first.
    """
    job = json.loads(Path(arguments[1]).read_text("utf-8"))
    folder = Path(job["folder"])
    loaded: dict[str, Loaded] = {}
    facts = {}
    with np.load(job["inputs"], allow_pickle=False) as inputs:
        for name, file in job["models"]:
            own = folder / f"{name}.consumer"
            own.mkdir()
            try:
                one = load(Path(file), job, own)
                batches = (_feeds(inputs, index, job["names"]) for index in range(job["batches"]))
                write_arrays(folder / f"{name}.npz", (one.run(feeds) for feeds in batches))
                tokens = _generated(one, _feeds(inputs, 0, job["names"]), job["generate"])
            except Exception as error:  # the consumer's own classes
                text = " ".join(str(error).split())
                sys.stderr.write(f"\nthe {name} model: {type(error).__name__}: {text}\n")
                return 1
            facts[name] = {**one.facts, "tokens": tokens}
            if job["repeats"]:
                loaded[name] = one
        seconds = timed(loaded, _feeds(inputs, 0, job["names"]), job["repeats"])
    answer = {"version": version, "facts": facts, "seconds": seconds}
    (folder / ANSWER).write_text(json.dumps(answer, allow_nan=False), "utf-8")
    return 0


def _feeds(inputs: Mapping[str, Any], batch: int, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    return {name: inputs[f"{batch}.{index}"] for index, name in enumerate(names)}


def _generated(one: Loaded, feeds: Feeds, wanted: tuple[int, int] | None) -> list[int]:
    if wanted is None:
        return []
    prompt, count = wanted
    first = {name: array[:1] for name, array in feeds.items()}
    tokens = tokens_in(first)
    if tokens is None:
        return []
    if one.generate is not None:
        given = first[tokens][0]
        return one.generate([int(token) for token in given[:prompt]], min(count, len(given) - prompt))
    return continued(lambda inputs: one.run(inputs)[0], first, tokens, prompt, count)


def timed(loaded: Mapping[str, Loaded], feeds: Feeds, repeats: int) -> dict[str, list[float]]:
    """Model → seconds of a pass over `feeds`, `repeats` times, the models in turn so that each sees the same machine.

    A repeat lasts at least `LEAST_SECONDS`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in loaded}
    passes = {}
    for name, one in loaded.items():
        start = time.perf_counter()
        for _ in range(WARM_UP):
            one.run(feeds)
        each = (time.perf_counter() - start) / WARM_UP
        passes[name] = min(max(1, math.ceil(LEAST_SECONDS / max(each, 1e-9))), MOST_PASSES)
    for _ in range(repeats):
        for name, one in loaded.items():
            start = time.perf_counter()
            for _ in range(passes[name]):
                one.run(feeds)
            seconds[name].append((time.perf_counter() - start) / passes[name])
    return seconds


def write_arrays(path: Path, batches: Iterable[Iterable[NDArray[np.generic]]]) -> None:
    """Write array j of batch i as `i.j` to an .npz file, batch by batch: together they may not fit in memory."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for i, arrays in enumerate(batches):
            for j, array in enumerate(arrays):
                with archive.open(f"{i}.{j}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
