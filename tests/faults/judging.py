"""Whether bad input is used or refused as it should be, and the good input that it is made of."""

import contextlib
import hashlib
import importlib.util
import json
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from evoquant.campaign.champion import Champion
from evoquant.errors import InputError
from evoquant.genomes.load import genome_from_dict
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_to_json
from tests.command import called

from . import mutations

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"
LIMIT_S = 60.0  # for one case, on a busy machine
LONGEST_MESSAGE = 6000

BYTES = [40, pytest.param(2500, marks=pytest.mark.long)]
VALUES = [40, pytest.param(1500, marks=pytest.mark.long)]


class Hang(BaseException):
    """A case took too long."""


@contextlib.contextmanager
def limited():
    def late(number, frame):
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cli(*words):
    """Exit code, stdout and stderr of the command line, in this process; what it does not expect comes out of it."""
    done = called(*words)
    done.stdout.encode()  # a terminal could not show half a character
    return done.returncode, done.stdout, done.stderr


def one_message(text, names):
    """Whether a message is short, printable, and names what is wrong with what."""
    assert any(name in text for name in names), text
    assert len(text) <= LONGEST_MESSAGE, text[:300]
    assert all(line.isprintable() for line in text.splitlines()), text
    assert len(text.rstrip()) > max(len(name) for name in names if name in text) + 5, text


def tried(names, *uses):
    """True where all `uses` accept the input, False where one refuses it in a message that holds one of `names`."""
    with limited():
        for use in uses:
            try:
                use()
            except InputError as error:
                one_message(str(error), names)
                return False
    return True


def tried_cli(names, *words, codes=(0, 2)):
    """The same, of the command line."""
    with limited():
        code, _, err = cli(*words)
    assert code in codes, (code, err)
    if code:
        assert err.startswith("evoquant: ") or "Error: Invalid value" in err, err  # typer's own check of paths
        one_message(err, names)
    return code == 0


def state(folder):
    """What lies in a folder: names, kinds and contents."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


class Tally:
    """Cases tried, and how many of them were used."""

    def __init__(self):
        self.tried = self.used = 0

    def add(self, used):
        self.tried += 1
        self.used += used


def structured(plain, count, seed, check):
    """Run `check` on `count` changed copies of plain data; hypothesis shrinks what fails."""
    tally = Tally()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations.broken(plain))
    def each(case):
        tally.add(check(case))

    seeded(seed)(each)()
    return tally


CONFIG_TEXTS = [(CONFIGS / f"{name}.yaml").read_bytes() for name in ("evolve", "tree", "map_elites", "islands")] + [
    b"search: {kind: cmaes, population: 12}\nstop: {target: 3.5, stagnation: 4, wall_time_s: 9}\n",
    b"genome: {kind: direct}\nmodels: {train: [seed/train], valid: [], test: []}\n"
    b"objective: {kind: budget, megabytes: 9}",
    b"task: {kind: digits, seed: 0, block: 50}\nsignals: [fisher]\nracing: {enabled: true, confidence: 0.9}\n"
    b"search: {kind: surrogate, batch: 2, in_flight: 2}\nstop: {passes: 12.5}\nexecutor: {limit_s: 3.5}",
    (CONFIGS / "journey.yaml").read_bytes(),
]


def small_profile():
    table = {"INT2": 0.3, "INT4": 0.1, "INT8": 0.01, "FP16": 0.001, "FP32": 0.0}
    kinds = ("Embedding", "Linear", "Linear", "LayerNorm", "Classifier")
    layers = tuple(
        LayerProfile(
            f"layer{i}",
            kind,
            (8, 4) if kind != "LayerNorm" else (8,),
            i / 4,
            channel_axis=None if kind == "LayerNorm" else 0,
            weight_std=0.1,
            gradient_sensitivity=0.5,
            loss=table,
            fisher={name: value / 2 for name, value in table.items()},
            allowed=("INT8", "FP16", "FP32") if i == 3 else None,
            tie_group="pair" if kind == "Linear" else None,
            fan_in=4,
        )
        for i, kind in enumerate(kinds)
    )
    return ModelProfile("small", layers, 64, {"fisher": 3.0}, {"made": {"by": ["hand"]}})


PROFILE = profile_to_json(small_profile()).encode()
RULE = json.loads(json.dumps(genome_from_dict({"kind": "strategy", "name": "wider_fp16_zone"}, "x").to_dict()))


TREE = {"kind": "tree", "expression": ["add", "loss", "where", "is_Linear", "mul", 0.006, "bits", "size_share"]}
GENOMES = [
    RULE,
    {
        "kind": "rule",
        "rungs": [{"signal": "loss:INT4", "above": 0.02, "width": "INT8"}],
        "edges": {"fraction": 0.2, "width": "FP16"},
        "otherwise": "INT4",
    },
    TREE,
    {"kind": "direct", "model": "small", "widths": dict.fromkeys(("layer0", "pair", "layer3", "layer4"), "INT8")},
    {"kind": "strategy", "name": "hybrid"},
]
FIGURES = {"fitness": 3.1, "retention": 0.96, "compression": 3.2, "effective_bits": 9.5}


def champions():
    provenance = {"campaign": "c", "seed": 0, "config_hash": "0" * 64}
    made = [Champion(genome_from_dict(one, "x"), {"train": FIGURES}, provenance) for one in GENOMES]
    return [json.loads(one.to_json()) | {"genome": genome} for one, genome in zip(made, GENOMES, strict=True)]


def input_folder(tmp_path):
    """Where the files of a test lie, and nothing else."""
    made = tmp_path / "input"
    made.mkdir()
    return made


def tiny_task():
    """`tiny` of the campaign's tests: a network in NumPy, measured in microseconds."""
    from evoquant.models.measurer import RUNTIMES
    from evoquant.models.tasks import TASKS

    found = importlib.util.spec_from_file_location("tiny", HERE.parent / "campaign" / "conftest.py")
    tiny = importlib.util.module_from_spec(found)
    sys.modules["tiny"] = tiny  # dataclasses look there
    found.loader.exec_module(tiny)
    TASKS["tiny"], RUNTIMES["tiny"] = (lambda seed, cache, block, batch: tiny.TinyTask(seed, block or 100)), tiny.start
    yield "tiny"
    del TASKS["tiny"], RUNTIMES["tiny"], sys.modules["tiny"]
