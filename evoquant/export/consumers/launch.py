"""Start a consumer in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evoquant.export.consumers import ANSWER
from evoquant.export.verification import OUTPUT_TOLERANCE, RETENTION_TOLERANCE
from evoquant.files import canonical_json, read_json, write_atomic

if TYPE_CHECKING:
    from evoquant.export.recipe import Recipe

Facts: TypeAlias = Mapping[str, Any]

LONGEST = 600  # characters of a consumer's message


@dataclass(frozen=True)
class Consumer:
    """What runs the models of a target.

    Attributes:
        name: for people.
        package: whose version counts.
        module: the script.
        suffix: of a model file.
        stored: bytes of a model file's float tensors.
        rounding: facts of a model and of the FP32 one → what rounds activations in the first; None where that cannot
            be known.
        defaults: a model's facts → what the consumer would round if it were left to itself; empty for nothing.
        due: a recipe and its main file → bytes that its tensors take in this form where that is not what was promised.
        network: whether a model file holds but a state, so that the network has to be made anew.
        rounds: why outputs differ from the measured ones by more than a rounding of the last digit; empty where they
            do not. It loosens the two tolerances below.
        outputs, retention: tolerances.
        log_probabilities: whether that is what comes out, in place of logits.
        values: numbers of outputs that are fetched at most, one sample's at least, where each takes long.
        timed: whether the time of a pass is that of the model, not of how its outputs are fetched.
    """

    name: str
    package: str
    module: str
    suffix: str
    stored: Callable[[Path], int]
    rounding: Callable[[Facts, Facts], tuple[str, ...] | None]
    defaults: Callable[[Facts], str] = lambda _: ""
    due: Callable[[Recipe, Path], float] | None = None
    network: bool = False
    rounds: str = ""
    outputs: float = OUTPUT_TOLERANCE
    retention: float = RETENTION_TOLERANCE
    log_probabilities: bool = False
    values: int | None = None
    timed: bool = True


@dataclass(frozen=True)
class Answer:
    """What a consumer has to say.

    Attributes:
        fault: why there is nothing else; empty where all went well.
        version: its own.
        facts: model → how it was run.
        seconds: model → of each timed pass.
    """

    fault: str = ""
    version: str = ""
    facts: Mapping[str, Facts] | None = None
    seconds: Mapping[str, Sequence[float]] | None = None


def run_consumer(
    consumer: Consumer,
    models: Mapping[str, Path],
    inputs: Path,
    names: Sequence[str],
    batches: int,
    outputs: Sequence[str],
    folder: Path,
    repeats: int = 0,
    network: Mapping[str, Any] | None = None,
    generate: tuple[int, int] | None = None,
) -> Answer:
    """Run models in a fresh process; their outputs are in `folder`, NAME.npz for each.

    Args:
        consumer: what runs them.
        models: name → file.
        inputs: as `evoquant.export.consumers.write_arrays` writes them.
        names: of the inputs.
        batches: how many of them are run.
        outputs: names of the outputs.
        folder: made anew.
        repeats: timed passes over the first batch.
        network: how the network is made, where the model files hold but its state.
        generate: of a language model, tokens of the first sample that are given and how many are to follow.
    """
    folder.mkdir()
    job = {
        "models": [[name, str(path)] for name, path in models.items()],
        "inputs": str(inputs),
        "names": list(names),
        "batches": batches,
        "outputs": list(outputs),
        "folder": str(folder),
        "repeats": repeats,
        "network": None if network is None else dict(network),
        "generate": None if generate is None else list(generate),
    }
    file = folder / "job.json"
    write_atomic(file, canonical_json(job))
    # the same packages as here, and nothing that happens to lie in the current folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-m", consumer.module, str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if done.returncode:
        return Answer(_message(consumer, done.returncode, done.stderr.decode("utf-8", "replace")))
    answer = read_json(folder / ANSWER)
    return Answer("", answer["version"], answer["facts"], answer["seconds"])


def _message(consumer: Consumer, code: int, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    tail = lines[-1] if lines else "it said nothing"
    return f"{consumer.name} {how}: {tail[:LONGEST]}"
