"""What is loaded, and when: a start is as fast as what it imports."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evoquant.cli import app, overview

CONFIGS = Path(__file__).parents[1] / "configs"
COMPILERS = {"numba", "llvmlite", "ray", "torch", "scipy", "sklearn", "onnx", "onnxruntime", "openvino"}
NEVER = COMPILERS | {"optuna", "pymoo", "pandas", "matplotlib", "transformers", "safetensors", "gguf"}
DEAP = {"deap", "moocore"}
SMALL = ("--set", "stop.generations=3")

AT_END = "finally:\n    open({path!r}, 'w').write('\\n'.join(sys.modules))\n"


def loaded(tmp_path, statement, *words):
    """Names of the modules that a fresh interpreter has once `statement` is through."""
    listing = tmp_path / "modules.txt"
    code = f"import sys\ntry:\n    {statement}\n" + AT_END.format(path=str(listing))
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return set(listing.read_text().splitlines())


def command(tmp_path, *words):
    return loaded(tmp_path, "from evoquant.cli import main; main()", *words)


def packages(modules):
    return {name.partition(".")[0] for name in modules}


def test_the_check_sees_what_is_imported(tmp_path):
    assert {"numpy", "evoquant"} <= packages(loaded(tmp_path, "import evoquant.rng"))


def test_importing_evoquant_imports_nothing_else(tmp_path):
    assert loaded(tmp_path, "import evoquant") - loaded(tmp_path, "pass") <= {"evoquant", "__future__"}


def test_the_overview_imports_nothing_else(tmp_path):
    more = command(tmp_path, "--help") - loaded(tmp_path, "pass")
    assert more <= {"evoquant", "evoquant.cli", "__future__"}


def test_the_overview_is_what_typer_prints():
    done = CliRunner().invoke(app, ["--help"], prog_name="evoquant", env={"COLUMNS": "80"})
    assert overview() == done.output


@pytest.mark.parametrize("word", ["run", "bound", "bench"])
def test_the_help_of_a_command_needs_no_numbers(tmp_path, word):
    assert not packages(command(tmp_path, word, "--help")) & (NEVER | DEAP | {"numpy"})


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    out = tmp_path_factory.mktemp("journey")
    words = ("run", CONFIGS / "journey.yaml", "--executor", "local", "--out", out / "run")
    return command(out, *words), out / "run"


def test_the_journey_loads_no_search_no_export_no_network(journey):
    modules, _ = journey
    assert not packages(modules) & (NEVER | DEAP)
    rooms = ("evoquant.export", "evoquant.models.onnx", "evoquant.search.genetic", "evoquant.campaign.build_measured")
    assert not [name for name in modules if name.startswith(rooms)]


def test_reading_a_run_loads_no_search_no_export(tmp_path, journey):
    modules = command(tmp_path, "report", journey[1])
    assert not packages(modules) & (NEVER | DEAP)
    assert not [name for name in modules if name.startswith(("evoquant.export", "evoquant.campaign.build_measured"))]


@pytest.mark.parametrize(
    ("config", "more", "may"),
    [
        ("evolve", ("--set", "search.population=20"), set()),
        ("nsga2", ("--set", "search.population=20"), DEAP),
        ("tree", ("--set", "search.population=20"), DEAP),
    ],
)
def test_a_small_population_never_loads_the_compiler(tmp_path, config, more, may):
    words = ("run", CONFIGS / f"{config}.yaml", "--executor", "local", "--out", tmp_path / "run", *SMALL, *more)
    assert not packages(command(tmp_path, *words)) & ((NEVER | DEAP) - may)


@pytest.mark.parametrize("words", [("export", "--list"), ("bound", "seed/test")])
def test_commands_without_a_campaign_read_no_config(tmp_path, words):
    modules = command(tmp_path, *words)
    assert not packages(modules) & (NEVER | DEAP)
    assert "evoquant.campaign.config" not in modules
