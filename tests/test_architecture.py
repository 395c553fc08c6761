"""The project's rules as tests: who imports whom, no stranger's code runs, no global randomness, docstrings, sizes.

Every check takes one parsed module and returns its faults; each is itself tested on a snippet that breaks it.
"""

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "evoquant"

# A room imports from the lines below its own; rooms on one line do not know each other.
LINES = (
    ("cli",),
    ("bench",),
    ("api", "testing"),
    ("report", "export"),
    ("campaign",),
    ("search", "models"),
    ("bounds", "genomes"),
    ("scoring",),
    ("profiles",),
    ("quantization",),
    ("execution", "store"),
    ("files",),
    ("errors", "rng"),
)
HEIGHT = {room: len(LINES) - i for i, line in enumerate(LINES) for room in line}

MAX_FILE, MAX_FUNCTION = 400, 80
PRINTS = "evoquant.cli"
# The second seeds DEAP's `random`, and restores it; the third looks whether others leave it alone; the last seeds all
# streams of the process around each call of another library, and restores them.
RANDOMNESS = ("evoquant.rng", "evoquant.genomes.tree_operators", "evoquant.testing.clauses", "evoquant.search.outside")
# `module:attribute` that the user has named; classes of a live network, in workers; tables.
LOADS_CODE = (
    "evoquant.models.code",
    "evoquant.models.shipped",
    "evoquant.search.outside_names",
)
HEAVY = (
    *("ray", "torch", "sklearn", "numba", "onnx", "onnxruntime", "matplotlib", "scipy", "optuna", "pymoo", "openvino"),
    *("ribs", "fsspec", "s3fs"),
    *("transformers", "compressed_tensors", "torchao", "gguf", "xllamacpp", "modelopt"),
    *("plotly", "mlflow", "tensorboard", "playwright"),
)
# module → heavy packages it may import at its top; itself imported lazily
HEAVY_ALLOWED: dict[str, tuple[str, ...]] = {
    "evoquant.bench.networks": ("torch",),
    "evoquant.bench.truth": ("torch",),
    "evoquant.genomes.rule_kernel": ("numba",),
    "evoquant.genomes.rule_prefix_kernel": ("numba",),
    "evoquant.genomes.tree_kernel": ("numba",),
    "evoquant.models.architectures": ("torch",),
    "evoquant.models.onnx_file": ("onnx",),
    "evoquant.models.onnx_graph": ("onnx",),
    "evoquant.models.onnx_layers": ("onnx",),
    "evoquant.models.onnx_macs": ("onnx",),
    "evoquant.models.onnx_parts": ("onnx",),
    "evoquant.models.onnx_stages": ("onnx",),
    "evoquant.models.onnx_variants": ("onnx",),
    "evoquant.models.torch_direct": ("torch",),
    "evoquant.models.torch_fisher": ("torch",),
    "evoquant.models.deployable_onnx": ("onnx",),
    "evoquant.models.deployable_torch": ("torch",),
    "evoquant.export.as_matmulnbits": ("onnx",),
    "evoquant.export.as_onnx": ("onnx",),
    "evoquant.export.as_openvino": ("openvino",),
    "evoquant.export.as_compressed_tensors": ("torch",),
    "evoquant.export.as_gguf": ("gguf",),
    "evoquant.export.as_modelopt": ("torch",),
    "evoquant.export.as_torchao": ("torch",),
    "evoquant.export.gguf_base": ("gguf",),
    "evoquant.export.hf": ("torch",),
    "evoquant.export.torchao_file": ("torch",),
    "evoquant.export.onnx_tensors": ("onnx",),
    "evoquant.models.torch_kinds": ("torch",),
    "evoquant.models.torch_reusable": ("torch",),
    "evoquant.models.torch_reuse": ("torch",),
    "evoquant.models.torch_layers": ("torch",),
    "evoquant.models.torch_layerwise": ("torch",),
    "evoquant.models.torch_macs": ("torch",),
    "evoquant.models.torch_signals": ("torch",),
    "evoquant.scoring.compiled": ("numba",),
    "evoquant.scoring.rows_kernel": ("numba",),
    "evoquant.search.breeding_kernel": ("numba",),
    "evoquant.search.pymoo_parts": ("pymoo",),
}
FORBIDDEN_MODULES = ("pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "deap.creator")
FORBIDDEN_BUILTINS = ("eval", "exec", "compile", "__import__")
FORBIDDEN_MEMBERS = (
    *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all")),
    "torch.load",
    "deap.gp.compile",
    *(f"builtins.{name}" for name in FORBIDDEN_BUILTINS),
)
# DEAP's own way, as a rival in a race: on trees that the module has made itself, nothing read from a file.
RIVALS = {"evoquant.bench.speed_trees": "deap.gp.compile"}
NUMPY_RANDOM = ("Generator", "Philox", "PCG64", "SeedSequence", "BitGenerator", "get_state")
TORCH_RANDOM = ("manual_seed", "seed", "rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal")


@dataclass(frozen=True)
class Import:
    """One name that a module imports: `target` dotted, where, and whether it happens while the module loads."""

    target: str
    line: int
    at_top: bool
    for_types: bool


@dataclass(frozen=True)
class Module:
    name: str
    source: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        return tuple(ast.walk(self.tree))

    @property
    def room(self) -> str:
        return self.name.split(".")[1] if "." in self.name else ""

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(self._imports(self.tree, at_top=True, for_types=False))

    def _imports(self, node: ast.AST, *, at_top: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, at_top, for_types)
            elif isinstance(child, ast.ImportFrom):
                for alias in child.names:
                    yield Import(f"{self._origin(child)}.{alias.name}", child.lineno, at_top, for_types)
            elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                for part in child.body:
                    yield from self._imports(ast.Module([part], []), at_top=at_top, for_types=True)
                for part in child.orelse:
                    yield from self._imports(ast.Module([part], []), at_top=at_top, for_types=for_types)
            else:
                inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from self._imports(child, at_top=at_top and not inner, for_types=for_types)

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        here = self.name.split(".")
        base = here[: len(here) - node.level + self.is_package]
        return ".".join([*base, *([node.module] if node.module else [])])

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Local name → what it stands for, over all imports of the module."""
        names = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    root = alias.name.split(".")[0]
                    names[alias.asname or root] = alias.name if alias.asname else root
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{self._origin(node)}.{alias.name}"
        return names

    def dotted(self, node: ast.AST) -> str:
        """`np.random.seed` written out, through this module's imports; '' for anything that is no plain path."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        return ""

    def members(self) -> Iterator[tuple[str, int]]:
        """Every dotted path that the module reads or imports, with its line."""
        for one in self.imports:
            yield one.target, one.line
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                yield self.dotted(node) or f"….{node.attr}", node.lineno

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        for node in self.nodes:
            if isinstance(node, ast.Call):
                yield self.dotted(node.func), node


@cache
def modules() -> list[Module]:
    """Read and parsed once for all checks."""
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        package = parts[-1] == "__init__"
        found.append(Module(".".join(parts[:-1] if package else parts), path.read_text("utf-8"), package))
    return found


def within(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def check_directions(module: Module) -> list[str]:
    if not module.room:  # evoquant/__init__.py forwards lazily and stands outside
        return []
    if module.room not in HEIGHT:
        return [f"1: the room {module.room!r} stands on no line; add it to LINES and to DESIGN"]
    faults = []
    for one in module.imports:
        if not within(one.target, ("evoquant",)):
            continue
        room = one.target.partition(".")[2].partition(".")[0]
        if room not in HEIGHT:
            faults.append(f"{one.line}: imports {one.target}, which is no room of the house")
        elif room != module.room and HEIGHT[room] >= HEIGHT[module.room]:
            faults.append(f"{one.line}: {module.room} must not import {room}")
    return faults


def check_forbidden(module: Module) -> list[str]:
    faults = []
    for path, line in module.members():
        forbidden = within(path, FORBIDDEN_MODULES) or within(path, FORBIDDEN_MEMBERS) or path.endswith(".from_string")
        if forbidden and path != RIVALS.get(module.name):
            faults.append(f"{line}: {path} can run a stranger's code")
    for path, call in module.calls():
        if path in FORBIDDEN_BUILTINS:
            faults.append(f"{call.lineno}: {path}() runs code")
        for keyword in call.keywords:
            fixed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg == "allow_pickle" and not fixed:
                faults.append(f"{call.lineno}: allow_pickle has to be False")
        if path == "importlib.import_module" and module.name not in LOADS_CODE:
            literal = call.args and isinstance(call.args[0], ast.Constant)
            if not literal:
                faults.append(f"{call.lineno}: only {LOADS_CODE[0]} imports by a name it is given")
    return faults


def check_randomness(module: Module) -> list[str]:
    faults = []
    for path, line in module.members():
        parts = path.split(".")
        if path.startswith("numpy.random.") and parts[2] not in NUMPY_RANDOM and module.name != RANDOMNESS[-1]:
            faults.append(f"{line}: {path}; take a generator from evoquant.rng")
        elif parts[0] == "random" and module.name not in RANDOMNESS:
            faults.append(f"{line}: {path} is global state; take a generator from evoquant.rng")
    for path, call in module.calls():
        drawn = path.startswith("torch.") and path.split(".")[-1] in TORCH_RANDOM
        if drawn and not any(keyword.arg == "generator" for keyword in call.keywords):
            faults.append(f"{call.lineno}: {path} draws from torch's global stream; pass generator=")
    return faults


def check_docstrings(module: Module) -> list[str]:
    def visit(node: ast.Module | ast.ClassDef, label: str) -> Iterator[str]:
        if not ast.get_docstring(node):
            yield f"{getattr(node, 'lineno', 1)}: {label} has no docstring"
        for child in statements(node):
            if not isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or child.name[0] == "_":
                continue
            here = child.name if isinstance(node, ast.Module) else f"{label}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from visit(child, here)
            elif not ast.get_docstring(child) and not exempt(child):
                yield f"{child.lineno}: {here} has no docstring"

    def statements(node: ast.AST) -> Iterator[ast.AST]:
        """What stands directly in a module or class, also under an `if` or `try`."""
        for child in ast.iter_child_nodes(node):
            yield child
            if isinstance(child, (ast.If, ast.Try, ast.With)):
                yield from statements(child)

    def exempt(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        marks = [ast.unparse(mark) for mark in function.decorator_list]
        return any(mark.endswith(("overload", ".setter")) for mark in marks)

    private = any(part.startswith("_") and part != "__main__" for part in module.name.split("."))
    return [] if private else list(visit(module.tree, "the module"))


def check_heavy(module: Module) -> list[str]:
    allowed = HEAVY_ALLOWED.get(module.name, ())
    return [
        f"{one.line}: imports {one.target} when it is loaded; import it where it is used"
        for one in module.imports
        if one.at_top and not one.for_types and within(one.target, HEAVY) and one.target.split(".")[0] not in allowed
    ]


def check_prints(module: Module) -> list[str]:
    if module.name == PRINTS:
        return []
    return [f"{call.lineno}: print()" for path, call in module.calls() if path == "print"]


def check_sizes(module: Module) -> list[str]:
    lines = len(module.source.splitlines())
    faults = [f"1: {lines} lines; at most {MAX_FILE}"] if lines > MAX_FILE else []
    for node in module.nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                faults.append(f"{node.lineno}: {node.name} has {length} lines; at most {MAX_FUNCTION}")
    return faults


def cycle_of(house: list[Module]) -> list[str]:
    """Names of modules that import each other while they load, in a circle; types count, functions do not."""
    names = {module.name for module in house}

    def owner(target: str) -> str:
        return target if target in names else target.rpartition(".")[0]

    edges = {
        module.name: sorted({owner(one.target) for one in module.imports if one.at_top} & names - {module.name})
        for module in house
    }
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for following in edges[name]:
                if found := walk(following, [*path, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := walk(name, []))), [])


CHECKS: dict[str, Callable[[Module], list[str]]] = {
    "directions": check_directions,
    "forbidden": check_forbidden,
    "randomness": check_randomness,
    "docstrings": check_docstrings,
    "heavy": check_heavy,
    "prints": check_prints,
    "sizes": check_sizes,
}


@pytest.mark.parametrize("rule", CHECKS)
def test_house_keeps_the_rule(rule):
    house = modules()
    assert len(house) > 20
    faults = [f"{module.name}:{fault}" for module in house for fault in CHECKS[rule](module)]
    assert not faults, "\n" + "\n".join(faults)


def test_no_import_cycles():
    assert cycle_of(modules()) == []


def test_command_line_starts_without_heavy_packages():
    code = f"import sys, evoquant.cli; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "", f"`import evoquant.cli` pulls in {done.stdout.strip()}"


def test_tests_of_equal_names_do_not_clash():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    assert "--import-mode=importlib" in options["addopts"]
    assert not list((ROOT / "tests").rglob("__init__.py")), "a package would give two test_x.py one name"


def test_rooms_in_lines_are_named_once():
    assert not [room for room, count in Counter(room for line in LINES for room in line).items() if count > 1]


DOC = '"""Doc."""\n'
BROKEN = [
    ("directions", "evoquant.scoring.x", "from evoquant.campaign.loop import run"),
    ("directions", "evoquant.scoring.x", "import evoquant.search.base"),
    ("directions", "evoquant.scoring.x", "from .. import cli"),
    ("directions", "evoquant.scoring.x", "from ..search import base"),
    ("directions", "evoquant.report.x", "from evoquant.export import TARGETS"),
    ("directions", "evoquant.execution.x", "from evoquant.store import Store"),
    ("directions", "evoquant.scoring.x", "def f():\n    from evoquant.genomes.base import Genome"),
    ("directions", "evoquant.errors", "if TYPE_CHECKING:\n    from evoquant.files import read_json"),
    ("directions", "evoquant.scoring.x", "import evoquant"),
    ("directions", "evoquant.attic.x", "import os"),
    ("forbidden", "evoquant.x", "import pickle"),
    ("forbidden", "evoquant.x", "def f():\n    from marshal import loads"),
    ("forbidden", "evoquant.x", "import cloudpickle.compat as c"),
    ("forbidden", "evoquant.x", "eval('1')"),
    ("forbidden", "evoquant.x", "import builtins as b\nb.exec('1')"),
    ("forbidden", "evoquant.x", "__import__('os')"),
    ("forbidden", "evoquant.x", "import yaml\nyaml.load('', Loader=yaml.SafeLoader)"),
    ("forbidden", "evoquant.x", "from yaml import unsafe_load"),
    ("forbidden", "evoquant.x", "import numpy\nnumpy.load('x', allow_pickle=True)"),
    ("forbidden", "evoquant.x", "import numpy\nnumpy.load('x', allow_pickle=flag)"),
    ("forbidden", "evoquant.x", "def f():\n    import torch as t\n    t.load('x', weights_only=True)"),
    ("forbidden", "evoquant.x", "from deap import creator"),
    ("forbidden", "evoquant.x", "from deap import gp\ngp.compile(tree, primitives)"),
    ("forbidden", "evoquant.bench.x", "from deap import gp\ngp.compile(tree, primitives)"),
    ("forbidden", "evoquant.bench.speed_trees", "from deap import gp\ngp.PrimitiveTree.from_string('x', primitives)"),
    ("forbidden", "evoquant.bench.speed_trees", "eval('1')"),
    ("forbidden", "evoquant.x", "from deap import gp\ngp.PrimitiveTree.from_string('x', primitives)"),
    ("forbidden", "evoquant.x", "make().from_string('x', primitives)"),
    ("forbidden", "evoquant.x", "from importlib import import_module as load\nload(name)"),
    ("randomness", "evoquant.x", "import numpy as np\nnp.random.seed(1)"),
    ("randomness", "evoquant.x", "import numpy as np\nrng = np.random.default_rng(1)"),
    ("randomness", "evoquant.x", "from numpy.random import rand"),
    ("randomness", "evoquant.x", "import random\nrandom.shuffle(x)"),
    ("randomness", "evoquant.x", "from random import choice"),
    ("randomness", "evoquant.x", "def f():\n    import torch\n    torch.manual_seed(1)"),
    ("randomness", "evoquant.x", "import torch\ntorch.randn(3)"),
    ("docstrings", "evoquant.x", "import os"),
    ("docstrings", "evoquant.x", DOC + "def f():\n    return 1"),
    ("docstrings", "evoquant.x", DOC + "async def f():\n    return 1"),
    ("docstrings", "evoquant.x", DOC + "class A:\n    x = 1"),
    ("docstrings", "evoquant.x", DOC + f"class A(Protocol):\n    {DOC}\n    def f(self) -> int: ..."),
    ("docstrings", "evoquant.x", DOC + f"class A:\n    {DOC}\n    @property\n    def f(self):\n        return 1"),
    ("docstrings", "evoquant.x", DOC + "if True:\n    def f():\n        return 1"),
    ("heavy", "evoquant.x", "import ray"),
    ("heavy", "evoquant.x", "from scipy.optimize import milp"),
    ("heavy", "evoquant.x", "try:\n    import torch\nexcept ImportError:\n    torch = None"),
    ("heavy", "evoquant.x", "class A:\n    import matplotlib.pyplot as plt"),
    ("prints", "evoquant.x", "def f():\n    print('x')"),
    ("sizes", "evoquant.x", "x = 1\n" * (MAX_FILE + 1)),
    ("sizes", "evoquant.x", "def f():\n" + "    x = 1\n" * MAX_FUNCTION),
]
SOUND = [
    (
        "directions",
        "evoquant.scoring.x",
        "from evoquant.scoring.cost import Cost\nfrom evoquant.errors import InputError",
    ),
    ("directions", "evoquant.files", "from evoquant.errors import InputError"),
    ("directions", "evoquant", "from evoquant import api"),
    ("forbidden", "evoquant.x", "import re, numpy\nre.compile('x')\nmodel.eval()\nnumpy.load('x', allow_pickle=False)"),
    ("forbidden", "evoquant.x", "import importlib\nimportlib.import_module('evoquant.api')"),
    ("forbidden", "evoquant.bench.speed_trees", "from deap import gp\ngp.compile(tree, primitives)"),
    ("forbidden", LOADS_CODE[1], "import importlib\nimportlib.import_module(name)"),
    ("randomness", RANDOMNESS[1], "import random\nrandom.getstate()"),
    ("randomness", "evoquant.x", "from evoquant.search.random import RandomSearch\nrng.random(3)"),
    ("randomness", "evoquant.x", "import numpy as np\ndef f(rng: np.random.Generator): ..."),
    ("randomness", "evoquant.x", "import torch\ntorch.randperm(3, generator=stream)"),
    (
        "docstrings",
        "evoquant.x",
        DOC + f"def f():\n    {DOC}\n    def inner():\n        return 1\ndef _g():\n    return 1",
    ),
    ("heavy", "evoquant.x", "if TYPE_CHECKING:\n    import torch\ndef f():\n    import ray"),
    ("prints", PRINTS, "print('x')"),
    ("prints", "evoquant.x", "console.print('x')"),
]


@pytest.mark.parametrize(("rule", "name", "source"), BROKEN)
def test_the_rule_can_fail(rule, name, source):
    assert CHECKS[rule](Module(name, source))


@pytest.mark.parametrize(("rule", "name", "source"), SOUND)
def test_the_rule_lets_sound_code_pass(rule, name, source):
    assert CHECKS[rule](Module(name, source)) == []


def test_cycles_are_found():
    circle = [
        Module("evoquant.a", "", is_package=True),
        Module("evoquant.a.x", "from evoquant.a.y import f"),
        Module("evoquant.a.y", "from evoquant.a import z"),
        Module("evoquant.a.z", "from . import x"),
    ]
    assert cycle_of(circle) == ["evoquant.a.x", "evoquant.a.y", "evoquant.a.z", "evoquant.a.x"]
    lazy = [*circle[:3], Module("evoquant.a.z", "def f():\n    from . import x")]
    assert cycle_of(lazy) == []
