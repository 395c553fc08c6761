"""What others may depend on: names, signatures, commands, options, config keys. public.txt holds them as they are.

Read from the sources, not from the objects: the same text on every Python. Where this fails, something public has
changed. If that was the purpose, accept it, and say it in CHANGELOG.md (docs/compatibility.md has the rules):

    python tests/api/test_public.py
"""

import ast
import difflib
import enum
import importlib
import inspect
import json
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer.main

import evoquant
from evoquant.campaign.schema import config_schema
from evoquant.cli.commands import app

PUBLIC = Path(__file__).with_name("public.txt")
HOUSE = Path(__file__).parents[2] / "evoquant"
ACCEPT = "python tests/api/test_public.py"

# All public names of a module; or only the named ones.
MODULES = {
    "evoquant": (),
    "evoquant.testing": (),
    "evoquant.errors": (
        *("EvoquantError", "CampaignError", "Interrupted", "InputError", "ConfigError", "ProfileError"),
        *("PrecisionError", "GenomeError", "RunDirError", "SearchError", "MissingExtraError"),
    ),
    "evoquant.rng": ("generator_for",),
    **{f"evoquant.{path.parent.name}.protocol": () for path in sorted(HOUSE.glob("*/protocol.py"))},
    # what the names above give and take
    "evoquant.api.ask_loop": ("AskTell", "Candidates"),
    "evoquant.api.ask_space": ("SearchSpace",),
    "evoquant.api.campaigns": ("Run",),
    "evoquant.api.result": ("Allocation",),
    "evoquant.campaign.champion": ("Champion",),
    "evoquant.genomes.base": ("NumericOperators", "mutate_genes", "sample_genes"),
    "evoquant.profiles.model": ("LayerProfile", "ModelProfile", "load_profile", "profile_from_dict", "profile_to_json"),
    "evoquant.quantization.precision": ("Menu", "Precision"),
    "evoquant.scoring.cost": ("Cost", "bits_cost"),
    "evoquant.scoring.problem": ("Problem", "compile_problem"),
    "evoquant.search.base": ("Turn",),
    "evoquant.search.batch": ("CandidateBatch", "EvaluationBatch"),
}
SPECIAL = ("__init__", "__call__", "__enter__", "__exit__", "__getitem__", "__iter__", "__len__")


def parsed(thing):
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def signature(node):
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def decorators(node):
    return {ast.unparse(one) for one in node.decorator_list}


def members(cls):
    """Name → line, of a class and of those of our own that it stands on."""
    lines = {}
    for base in reversed([one for one in cls.__mro__ if one.__module__.split(".")[0] == "evoquant"]):
        for node in parsed(base).body:
            if isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_"):
                lines[ast.unparse(node.target)] = ast.unparse(node)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if node.name.startswith("_") and node.name not in SPECIAL:
                    continue
                marks = decorators(node)
                if "overload" in marks:
                    continue
                shown = [m for m in ("classmethod", "staticmethod", "property", "cached_property") if m in marks]
                lines[node.name] = " ".join([*shown, node.name + signature(node)])
    return lines


def described(module, name, thing):
    """Lines that say what a public thing is."""
    if inspect.isclass(thing):
        marks = decorators(parsed(thing))
        kind = "frozen dataclass" if any("frozen=True" in mark for mark in marks) else "class"
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
        yield f"{kind} {name}({bases})" if bases else f"{kind} {name}"
        if issubclass(thing, enum.Enum):
            yield from (f"    {one.name} = {one.value!r}" for one in thing)
        yield from (f"    {line}" for _, line in sorted(members(thing).items()))
    elif inspect.isfunction(thing):
        yield f"def {name}{signature(parsed(thing))}"
    else:
        yield assigned(module, name)


def assigned(module, name):
    """A type's other name, or a value, as the module writes it."""
    return next(ast.unparse(node) for node in ast.parse(inspect.getsource(module)).body if name in bound_by(node))


def names_of(module, only):
    if only:
        return only
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    own = {name: thing for name, thing in vars(module).items() if not name.startswith("_")}
    tree = ast.parse(inspect.getsource(module))
    return sorted(own.keys() & {name for node in tree.body for name in bound_by(node)})


def bound_by(node):
    """Names that a statement of a module defines itself; what it imports belongs to others."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [ast.unparse(one) for one in node.targets]
    return [ast.unparse(node.target)] if isinstance(node, ast.AnnAssign) else []


def python_lines():
    for place, only in MODULES.items():
        module = importlib.import_module(place)
        yield f"\n[{place}]"
        for name in names_of(module, only):
            yield from described(module, name, getattr(module, name))


def command_lines():
    yield "\n[commands]"
    for name, command in sorted(typer.main.get_command(app).commands.items()):
        yield f"evoquant {name}"
        hints = get_type_hints(command.callback)
        for one in sorted(command.params, key=lambda one: (one.param_type_name, one.name)):
            if one.name in hints:  # not --help
                yield f"    {parameter(one, hints[one.name])}"


def parameter(one, hint):
    option = one.param_type_name == "option"
    shown = " ".join(sorted([*one.opts, *one.secondary_opts])) if option else one.metavar or one.name.upper()
    kind = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return f"{one.param_type_name} {shown}: {kind.replace('pathlib.', '')}{' (required)' if one.required else ''}"


def config_lines():
    """The keys of campaign files, from their schema: where, what they take, the default."""
    yield "\n[campaign files]"
    schema = config_schema()
    for owner, part in [("", schema), *sorted(schema.get("$defs", {}).items())]:
        for key, value in sorted(part.get("properties", {}).items()):
            default = f" = {json.dumps(value['default'])}" if "default" in value else ""
            need = " (required)" if key in part.get("required", ()) else ""
            yield f"{owner}.{key}: {taken(value)}{default}{need}"


def taken(value):
    """The types of a key in a few words."""
    if "$ref" in value:
        return value["$ref"].rpartition("/")[2]
    if "const" in value:
        return json.dumps(value["const"])
    if "enum" in value:
        return " | ".join(json.dumps(one) for one in value["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in value:
            return " | ".join(taken(one) for one in value[key])
    kind = value.get("type", "any")
    if kind == "array":
        return f"[{taken(value.get('items', {}))}]"
    return kind if isinstance(kind, str) else " | ".join(kind)


@cache
def surface():
    head = f"# What others may depend on. Written by: {ACCEPT}"
    return "\n".join([head, *python_lines(), *command_lines(), *config_lines()]) + "\n"


def changes(before, after):
    """The lines that went and came, in a form to read."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "public.txt", "now", n=1, lineterm="")
    return "\n".join(lines)


def test_public_names_and_signatures_are_those_that_were_accepted():
    found = changes(PUBLIC.read_text(encoding="utf-8"), surface())
    if found:
        pytest.fail(
            f"what others may depend on has changed:\n{found}\n\nOn purpose? Accept it with `{ACCEPT}`, and say it in "
            "CHANGELOG.md; a name that goes stays deprecated for a while, see docs/compatibility.md.",
            pytrace=False,
        )


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def f(a, *, b: int = 2) -> str: ...", "(a, *, b: int=2) -> str"),
        ("def f(*words, **more): ...", "(*words, **more)"),
    ],
)
def test_a_signature_is_read_whole(source, line):
    assert signature(ast.parse(source).body[0]) == line


def test_a_lost_name_is_named():
    before = surface()
    lost = next(line for line in before.splitlines() if line.startswith("def optimize("))
    after = before.replace(lost + "\n", "")
    assert [line for line in changes(before, after).splitlines() if line.startswith("-")][1:] == [f"-{lost}"]


def test_everything_that_evoquant_offers_is_held():
    text = surface()
    for name in evoquant.__all__:
        assert f"def {name}(" in text or f"class {name}" in text.replace("frozen dataclass", "class"), name


if __name__ == "__main__":
    PUBLIC.write_text(surface(), encoding="utf-8")
    sys.stdout.write(f"{PUBLIC} is what is public now\n")
