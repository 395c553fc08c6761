"""The documentation: its Python blocks run, its references leave nothing out, the headline is as short as it says.

A block that needs something says so in a comment before it, `<!-- context: a torch model -->`, which names an entry of
CONTEXTS here. The blocks of a page run in order, as one module. Notebooks (`{code-cell}`) run when the site is built.
"""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if ".in." not in path.name)]
ELSEWHERE = {"asktell.md": "tests/api/test_asktell_given.py"}
CONTEXT = re.compile(r"<!-- context: (.+?) -->\s*\Z")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
CELL = re.compile(r"^```\{code-cell\}\n(?::tags: \[(.*?)\]\n)?(.*?)^```", re.DOTALL | re.MULTILINE)

NETWORK = """
import torch

torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
x = torch.randn(80, 6)
y = network(x).argmax(1)
"""
CONTEXTS = {
    "a torch model": NETWORK + "model = model2 = network\n",
    "a network": NETWORK + "x2, y2, x3, y3 = x[:40], y[:40], x[:40], y[:40]\n",
}


def blocks(path):
    """Every Python block of a page: the context that it names, None where it names none, and its code."""
    text = path.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        context = CONTEXT.search(text, 0, found.start())
        yield context.group(1) if context else None, found.group(1)


WITH_CODE = [path for path in PAGES if path.name not in ELSEWHERE and any(blocks(path))]


@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.name)
def test_the_python_blocks_of_a_page_run(path, tmp_path, monkeypatch):
    pieces = list(blocks(path))
    if any(context for context, _ in pieces):
        pytest.importorskip("torch")
        pytest.importorskip("onnx")
    code = "".join(f"{CONTEXTS[context] if context else ''}\n{code}\n" for context, code in pieces)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"page_{path.stem.lower()}"
    (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    try:
        page = importlib.import_module(name)
        if hasattr(page, "mine"):
            assert page.mine().layers
    finally:
        sys.modules.pop(name, None)


def test_what_runs_elsewhere_is_there():
    for name, test in ELSEWHERE.items():
        assert name in (ROOT / test).read_text(encoding="utf-8")


def cells(name):
    return CELL.findall((ROOT / "docs/notebooks" / name).read_text(encoding="utf-8"))


def test_a_new_user_needs_fewer_than_20_lines_from_a_network_to_a_verified_export():
    (own,) = [code for tags, code in cells("own_network.md") if tags == "yours"]
    (code,) = [code for tags, code in cells("own_network.md") if tags == "evoquant"]
    called = {node.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)}
    assert {"optimize", "export", "verify"} <= called
    lines = [line for line in f"{own}\n{code}".splitlines() if line.strip()]
    assert len(lines) < 20
    assert f"{len(lines)} lines" in (ROOT / "docs/notebooks/own_network.md").read_text(encoding="utf-8")


@pytest.fixture
def generated(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    yield importlib.import_module("generated")
    sys.modules.pop("generated", None)


def test_the_yaml_reference_has_every_key_with_its_words(generated):
    from evoquant.campaign.schema import config_schema

    page = generated.yaml_reference()
    schema = config_schema()
    parts = {"": schema, **{name: part for name, part in schema["$defs"].items() if "properties" in part}}
    sections = dict(re.findall(r"\(yaml-(\w+)\)=\n(.*?)(?=\n\(yaml-|\n## |\Z)", page, re.DOTALL))
    sections[""] = page.partition("\n## `")[0]
    assert sections.keys() == {name.lower() for name in parts}
    for name, part in parts.items():
        rows = {key: row for row, key in re.findall(r"^(\| `(\w+)` \|.*)$", sections[name.lower()], re.MULTILINE)}
        assert rows.keys() == part["properties"].keys(), name
        for key, value in part["properties"].items():
            assert generated._cell(value.get("description", "")) in rows[key]
            for limit in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
                assert limit not in value or generated._number(value[limit]) in rows[key], f"{name}.{key}"
    assert set(re.findall(r"\(#yaml-(\w+)\)", page)) <= sections.keys()


def test_the_sweep_reference_has_every_key_with_its_words(generated):
    from evoquant.campaign.schema import sweep_schema

    page, schema = generated.sweep_reference(), sweep_schema()
    rows = {key: row for row, key in re.findall(r"^(\| `(\w+)` \|.*)$", page, re.MULTILINE)}
    keys = schema["properties"] | schema["$defs"]["SweepExecutorConfig"]["properties"]
    assert rows.keys() == keys.keys()
    for key, value in keys.items():
        assert not value.get("description") or generated._cell(value["description"]) in rows[key]
    assert set(re.findall(r"\(#yaml-(\w+)\)", page)) == {"sweepexecutorconfig", "resourcesconfig"}


def test_the_command_reference_has_every_option(generated):
    import typer

    from evoquant.cli import COMMANDS, app

    page = generated.command_reference()
    sections = dict(re.findall(r"^## `evoquant (.+?)`\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    assert {path.split()[0] for path in sections} == set(COMMANDS)
    for name, command in typer.main.get_command(app).commands.items():
        for parameter in command.params:
            if not getattr(parameter, "hidden", False) and parameter.param_type_name == "option":
                assert parameter.opts[0] in sections[name], f"{name} {parameter.opts[0]}"


@pytest.mark.parametrize("package", ["evoquant", "evoquant.testing"])
def test_the_python_reference_has_every_public_name(package):
    page = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/reference").glob("*.md")))
    for name in importlib.import_module(package).__all__:
        assert f":: {package}.{name}\n" in page, name


def test_the_python_reference_has_every_protocol():
    page = (ROOT / "docs/reference/protocols.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "evoquant").glob("*/protocol.py")):
        assert f":: evoquant.{path.parent.name}.protocol\n" in page
