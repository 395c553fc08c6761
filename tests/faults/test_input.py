"""Whatever a file holds, it is used or refused in one message: no traceback, no hang, nothing on disk changed."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from evoquant import api
from evoquant.campaign.apply import load_any_champion
from evoquant.campaign.champion import Champion
from evoquant.campaign.config import config_from_dict, load_config
from evoquant.campaign.imported_layers import Site
from evoquant.campaign.score import Unresolved, allocation_of, menu_for, read_allocation
from evoquant.cli import main
from evoquant.errors import InputError, Interrupted
from evoquant.files import pretty_json
from evoquant.genomes.load import genome_from_dict
from evoquant.profiles.model import LayerProfile, ModelProfile, load_profile, profile_to_json
from evoquant.quantization.precision import SEED_MENU
from evoquant.report.allocation import allocate
from evoquant.scoring.problem import compile_problem
from evoquant.testing.interrupt import StopAfter

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"
LIMIT_S = 30.0  # for one case, on a busy machine
LONGEST_MESSAGE = 6000

spec = importlib.util.spec_from_file_location("mutations", HERE / "mutations.py")
mutations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutations)


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
    out, err = io.StringIO(), io.StringIO()
    argv, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ["evoquant", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
    out.getvalue().encode()  # a terminal could not show half a character
    return code, out.getvalue(), err.getvalue()


def one_message(text, names):
    """Whether a message is short, printable, and names what is wrong with what."""
    assert any(name in text for name in names), text
    assert len(text) <= LONGEST_MESSAGE, text[:300]
    assert all(line.isprintable() for line in text.splitlines()), text
    assert len(text.rstrip()) > len(max(names, key=len)) + 5, text


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
        assert err.startswith("evoquant: ")
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

    from hypothesis import seed as seeded

    seeded(seed)(each)()
    return tally


# ---- configs --------------------------------------------------------------------------------------------------------

CONFIG_TEXTS = [(CONFIGS / f"{name}.yaml").read_bytes() for name in ("evolve", "tree", "map_elites", "islands")] + [
    b"search: {kind: cmaes, population: 12}\nstop: {target: 3.5, stagnation: 4, wall_time_s: 9}\n",
    b"genome: {kind: direct}\nmodels: {train: [seed/train], valid: [], test: []}\n"
    b"objective: {kind: budget, megabytes: 9}",
    b"task: {kind: digits, seed: 0, block: 50}\nsignals: [fisher]\nracing: {enabled: true, confidence: 0.9}\n"
    b"search: {kind: surrogate, batch: 2, in_flight: 2}\nstop: {passes: 12.5}\nexecutor: {limit_s: 3.5}",
    (CONFIGS / "journey.yaml").read_bytes(),
]


@pytest.fixture
def built(monkeypatch):
    """Campaigns are built and not run."""
    monkeypatch.setattr(api, "run_loop", lambda campaign, *_: campaign.close())


def check_config(path, data, out):
    path.write_bytes(data)
    before = state(path.parent)

    def use():
        config, _ = load_config(path)
        again = config_from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)), str(path))
        assert again.hash() == config.hash()
        if config.task is None:  # else a network would be trained
            api.run(path, out=out, overrides=["executor.kind=local"])
            shutil.rmtree(out)

    used = tried([str(path)], use)
    assert state(path.parent) == before
    assert not [name for name in state(out) if name != ".lock"]
    return used


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "input"
    made.mkdir()
    return made


BYTES = [40, pytest.param(2500, marks=pytest.mark.long)]
VALUES = [40, pytest.param(1500, marks=pytest.mark.long)]


@pytest.mark.parametrize("count", BYTES)
def test_configs_with_changed_bytes(folder, tmp_path, built, record, count):
    rng, tally = np.random.default_rng(1), Tally()
    for i in range(count):
        data = mutations.garbled(CONFIG_TEXTS[i % len(CONFIG_TEXTS)], rng, CONFIG_TEXTS)
        tally.add(check_config(folder / "c.yaml", data, tmp_path / "out"))
    record("input", "configs with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_configs_with_changed_values(folder, tmp_path, built, record, count):
    import yaml

    all_used = all_tried = 0
    for i, text in enumerate(CONFIG_TEXTS):
        plain = yaml.safe_load(text)
        share = max(count // len(CONFIG_TEXTS), 4)
        tally = structured(
            plain, share, i, lambda case: check_config(folder / "c.yaml", mutations.as_yaml(case), tmp_path / "out")
        )
        all_tried, all_used = all_tried + tally.tried, all_used + tally.used
    record("input", "configs with changed values", tried=all_tried, held=all_tried, used=all_used)


# ---- profiles -------------------------------------------------------------------------------------------------------


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


def check_profile(path, data):
    path.write_bytes(data)
    rule = genome_from_dict(RULE, "rule")

    def use():
        profile = load_profile(path)
        again = profile_to_json(profile)
        path.write_bytes(again.encode())
        assert load_profile(path).digest == profile.digest
        pretty_json(allocate(rule, profile))

    return tried([str(path), "profile ", "applied to ", "layers ", "layer "], use)


@pytest.mark.parametrize("count", BYTES)
def test_profiles_with_changed_bytes(folder, record, count):
    rng, tally = np.random.default_rng(2), Tally()
    for i in range(count):
        data = mutations.garbled(PROFILE, rng)
        tally.add(check_profile(folder / "p.json", data))
        if i % 50 == 0:
            (folder / "p.json").write_bytes(data)
            tried_cli(["p.json", "profile ", "layer"], "apply", "wider_fp16_zone", folder / "p.json", "--json")
            tried_cli(["p.json", "profile ", "layer"], "bound", folder / "p.json", "--json")
    record("input", "profiles with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_profiles_with_changed_values(folder, record, count):
    tally = structured(
        json.loads(PROFILE), count, 0, lambda case: check_profile(folder / "p.json", mutations.as_json(case))
    )
    record("input", "profiles with changed values", tried=tally.tried, held=tally.tried, used=tally.used)


# ---- champions ------------------------------------------------------------------------------------------------------

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


def check_champion(path, data):
    path.write_bytes(data)
    before = state(path.parent)
    problem = compile_problem(small_profile(), SEED_MENU)

    def use():
        champion = load_any_champion(path)
        pretty_json(allocate(champion.genome, small_profile()))
        assert champion.genome.allocate(problem).shape == (4,)
        json.loads(champion.to_json())
        for target in ("json", "yaml", "python", "rust", "csv"):
            render(target, champion)

    used = tried([str(path), "'small'", "signal", "menu", "rule ", "python", "rust", "export", "Rust"], use)
    assert state(path.parent) == before
    return used


def render(target, champion):
    from evoquant.export import TARGETS
    from evoquant.export import render as rendered

    rendered(target, champion, small_profile() if TARGETS[target].one_model else None).encode()


@pytest.mark.parametrize("count", BYTES)
def test_champions_with_changed_bytes(folder, record, count):
    rng, tally = np.random.default_rng(3), Tally()
    texts = [pretty_json(one).encode() for one in champions()]
    for i in range(count):
        data = mutations.garbled(texts[i % len(texts)], rng, texts)
        path = folder / ("c.json" if i % 7 else "c.yaml")
        tally.add(check_champion(path, data))
        if i % 50 == 0:
            tried_cli([path.name, "small"], "export", path, "--to", ("python", "rust")[i // 50 % 2])
        path.unlink()
    record("input", "champions with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_champions_with_changed_values(folder, record, count):
    all_used = all_tried = 0
    for i, plain in enumerate(champions()):
        tally = structured(
            plain, count // 5, i, lambda case: check_champion(folder / "c.json", mutations.as_json(case))
        )
        all_tried, all_used = all_tried + tally.tried, all_used + tally.used
    record("input", "champions with changed values", tried=all_tried, held=all_tried, used=all_used)


# ---- allocations of `score` -----------------------------------------------------------------------------------------

WIDTHS = {"layer0": "INT8", "layer1": "INT4", "layer2": "INT4", "layer3": "FP16", "layer4": "FP32"}
COMPRESSED = {
    "architectures": ["Small"],
    "model_type": "llama",
    "dtype": "float16",
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "group_0": {
                "targets": ["re:layer[12]", "Embedding"],
                "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "channel", "group_size": None},
            }
        },
        "ignore": ["layer4"],
    },
}
MODELOPT = {
    "producer": {"name": "modelopt"},
    "quantization": {"quant_algo": "W8A16", "exclude_modules": ["layer4", "lay*3"], "kv_cache_quant_algo": None},
}
QUANT_CFG = {
    "quant_cfg": {"*weight_quantizer": {"num_bits": 8, "axis": 0}, "*layer4*": {"enable": False}},
    "algorithm": "max",
}
SITES = tuple(
    Site(layer.name, ("Embedding",) if layer.type == "Embedding" else ("Linear",), layer.shape, layer.channel_axis)
    for layer in small_profile().layers
    if layer.type != "LayerNorm"
)


def allocations():
    csv = "layer,width\r\n" + "".join(f"{layer},{width}\r\n" for layer, width in WIDTHS.items())
    plain = [WIDTHS, COMPRESSED, MODELOPT, QUANT_CFG, champions()[3]]
    return {"a.csv": csv.encode()} | {f"a{i}.json": pretty_json(one).encode() for i, one in enumerate(plain)}


def check_allocation(path, data):
    path.write_bytes(data)
    before = state(path.parent)

    def use():
        given = read_allocation(path)
        if isinstance(given, Unresolved):
            given = given.recipe.resolve(SITES).widths
        menu = menu_for(given, None)
        allocation_of(given, compile_problem(small_profile(), menu), str(path))

    used = tried([str(path), "precision", "menu", "'small'", "signal", "rule "], use)
    assert state(path.parent) == before
    return used


@pytest.mark.parametrize("count", BYTES)
def test_allocations_with_changed_bytes(folder, record, count):
    rng, tally = np.random.default_rng(4), Tally()
    known = allocations()
    for i in range(count):
        name = list(known)[i % len(known)]
        tally.add(check_allocation(folder / name, mutations.garbled(known[name], rng, list(known.values()))))
        (folder / name).unlink()
    record("input", "allocations for score with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_allocations_with_changed_values(folder, record, count):
    all_used = all_tried = 0
    for i, plain in enumerate([WIDTHS, COMPRESSED, MODELOPT, QUANT_CFG]):
        tally = structured(
            plain, count // 4, i, lambda case: check_allocation(folder / "a.json", mutations.as_json(case))
        )
        all_tried, all_used = all_tried + tally.tried, all_used + tally.used
    record("input", "allocations for score with changed values", tried=all_tried, held=all_tried, used=all_used)


# ---- recipes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(folder):
    """A recipe in a folder: its path, and the numbers beside it."""
    pytest.importorskip("safetensors")
    from evoquant.export.recipe import build_recipe, write_recipe

    rng = np.random.default_rng(0)
    profile = dataclasses.replace(
        small_profile(), layers=tuple(dataclasses.replace(one, tie_group=None) for one in small_profile().layers)
    )
    widths = ["INT4-g4-asym", "INT8-channel", "FP8-channel", "BF16", "FP16"]
    shapes = {layer.name: layer.shape for layer in profile.layers}
    made = build_recipe(
        profile,
        widths,
        lambda name: rng.standard_normal(shapes[name]).astype(np.float32),
        "digest",
        {"test": {"retention": 0.5}},
        {"seed": 0},
    )
    write_recipe(made, folder / "r.json")
    return folder / "r.json"


def check_recipe(path, data, numbers=None):
    """Numbers, where they are changed, get the digest that belongs to them, so that more than that is looked at."""
    from evoquant.export.recipe import read_recipe

    if numbers is not None:
        path.with_suffix(".safetensors").write_bytes(numbers)
        digest = json.loads(data)["tensors_sha256"]
        data = data.replace(digest.encode(), hashlib.sha256(numbers).hexdigest().encode())
    path.write_bytes(data)
    before = state(path.parent)

    def use():
        found = read_recipe(path)
        for layer in found.layers:
            assert found.values(layer).shape == layer.shape

    used = tried([path.stem], use)
    assert state(path.parent) == before
    return used


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.long)])
def test_recipes_with_changed_bytes(recipe, record, count):
    rng, tally = np.random.default_rng(5), Tally()
    text, numbers = recipe.read_bytes(), recipe.with_suffix(".safetensors").read_bytes()
    for i in range(count):
        if i % 3 == 0:
            tally.add(check_recipe(recipe, text, mutations.garbled(numbers, rng)))
        else:
            tally.add(check_recipe(recipe, mutations.garbled(text, rng)))
        if i % 25 == 0:
            tried_cli(["r.json", "r.safetensors"], "lint", recipe, "--for", "onnx", codes=(0, 1, 2))
        recipe.with_suffix(".safetensors").write_bytes(numbers)
    record("input", "recipes with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_recipes_with_changed_values(recipe, record, count):
    plain = json.loads(recipe.read_bytes())
    tally = structured(plain, count, 0, lambda case: check_recipe(recipe, mutations.as_json(case)))
    record("input", "recipes with changed values", tried=tally.tried, held=tally.tried, used=tally.used)


# ---- run directories ------------------------------------------------------------------------------------------------

SMALL = ["executor.kind=local", "stop.generations=5", "search.population=12"]
READ_BY_REPORT = ("journal.jsonl", "champion.json", "archive.json", "gate.json", "resolved.json", "profile.json")
READ_BY_RESUME = ("journal.jsonl", "checkpoint.json", "resolved.json", "environment.json")


@pytest.fixture(scope="module")
def measured_task():
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory, measured_task):
    """Finished runs by name, and the same interrupted in the middle."""
    home = tmp_path_factory.mktemp("runs")
    (home / "tiny.yaml").write_text(
        f"task: {{kind: {measured_task}}}\ngenome: {{kind: direct}}\nmenu: [INT2-channel, INT8-channel, FP32]\n"
        f"cache: {home}/cache\nsearch: {{kind: genetic, population: 8}}\nracing: {{enabled: false}}\n"
    )
    configs = {"rules": CONFIGS / "evolve.yaml", "trees": CONFIGS / "tree.yaml", "tiny": home / "tiny.yaml"}
    configs["archive"] = CONFIGS / "map_elites.yaml"
    made = {}
    for name, config in configs.items():
        sizes = SMALL if name != "archive" else [SMALL[0], "stop.generations=4", "search.batch=12"]
        api.run(config, out=home / name, overrides=sizes)
        with pytest.raises(Interrupted):
            api.run(config, out=home / f"{name}-half", overrides=sizes, observer=StopAfter(3))
        made[name] = (home / name, home / f"{name}-half")
    return made


def placed(original, folder, name, data):
    """A copy of a run directory with one file changed."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(original, run)
    (run / name).write_bytes(data)
    return run


def check_report(original, folder, name, data, i):
    run = placed(original, folder, name, data)
    before = state(run)
    words = (["report", run], ["report", run, "--json"], ["report", run, "--markdown"], ["pick", run])[i % 4]
    if i % 11 == 0:
        words = ["export", run, "--to", "csv"]
    used = tried_cli([str(run), "'small'", "export", "csv", "signal"], *words)
    assert state(run) == before
    return used


def check_resume(whole, half, folder, name, data):
    """Used: the journal ends as if nothing had been; refused: nothing that was whole is lost."""
    run = placed(half, folder, name, data)
    before, complete = state(run), (half / "journal.jsonl").read_bytes()
    ended = []
    used = tried([str(run)], lambda: ended.append(api.resume(run)))
    journal = (run / "journal.jsonl").read_bytes()
    if used:
        assert journal == (whole / "journal.jsonl").read_bytes()
        assert (run / "champion.json").read_bytes() == (whole / "champion.json").read_bytes()
        return True
    given = data if name == "journal.jsonl" else complete
    assert given.startswith(journal), "a journal that is refused is cut at most"
    assert b"\n" not in given[len(journal) :].removesuffix(b"\n"), "at most its last line"
    after = {path: digest for path, digest in state(run).items() if path not in ("journal.jsonl", ".lock")}
    assert after == {path: digest for path, digest in before.items() if path not in ("journal.jsonl", ".lock")}
    return False


def variants(data, rng, i):
    """The file with changed bytes, or, where it is JSON, with a changed value, or one in one of its lines."""
    if i % 2:
        return mutations.garbled(data, rng)
    lines = data.splitlines(keepends=True)
    whole = json.loads(data) if len(lines) == 0 or not data.startswith(b'{"best"') else None
    pick = lambda n: int(rng.integers(0, n))  # noqa: E731
    if whole is not None:
        return mutations.as_json(mutations.changed(whole, pick))
    row = pick(len(lines))
    lines[row] = mutations.as_json(mutations.changed(json.loads(lines[row]), pick)) + b"\n"
    return b"".join(lines)


@pytest.mark.parametrize("count", [60, pytest.param(1800, marks=pytest.mark.long)])
def test_reports_of_damaged_runs(runs, folder, record, count):
    rng, tally = np.random.default_rng(6), Tally()
    cases = [(run, name) for run, _ in runs.values() for name in READ_BY_REPORT if (run / name).exists()]
    for i in range(count):
        run, name = cases[i % len(cases)]
        tally.add(check_report(run, folder, name, variants((run / name).read_bytes(), rng, i), i))
    record("input", "reports of runs with a damaged file", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", [40, pytest.param(1200, marks=pytest.mark.long)])
def test_runs_that_go_on_with_a_damaged_file(runs, folder, record, count):
    rng, tally = np.random.default_rng(7), Tally()
    cases = [(*pair, name) for pair in runs.values() for name in READ_BY_RESUME if (pair[1] / name).exists()]
    for i in range(count):
        whole, half, name = cases[i % len(cases)]
        tally.add(check_resume(whole, half, folder, name, variants((half / name).read_bytes(), rng, i)))
    record("input", "resumes with a damaged file", tried=tally.tried, held=tally.tried, used=tally.used)
