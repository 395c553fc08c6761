"""YAML at the boundary: the safe constructors only, no repeated keys, no merge keys, no alias bombs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from evoquant.errors import LONGEST_VALUE, ConfigError, quoted
from evoquant.files import first_lone_surrogate

if TYPE_CHECKING:
    from evoquant.errors import InputError

MAX_NODES = 100_000
MAX_DEPTH = 50
MAX_YAML_BYTES = 2**22  # PyYAML reads a megabyte or two a second
LONGEST_NUMBER = 100  # characters
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


def parse_yaml(text: str, source: str, *, error: type[InputError] = ConfigError) -> Any:
    """`yaml.safe_load` that refuses repeated keys, merge keys, alias bombs and numbers of hundreds of digits.

    Raises:
        ConfigError: (or the given subclass of InputError) naming `source` and the line.
    """
    try:
        data = _StrictLoader(text).get_single_data()
    except yaml.reader.ReaderError as fault:
        raise error(f"{source}: not valid YAML: character {fault.position + 1} is {_named(fault.character)}.") from None
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise error(f"{source}: not valid YAML{place}: {_said(getattr(fault, 'problem', None) or fault)}.") from None
    except RecursionError:
        raise error(f"{source}: nested too deep.") from None
    _bounded(data, source, error)
    if (broken := first_lone_surrogate(data)) is not None:
        raise error(f"{source}: {quoted(broken, LONGEST_VALUE)} holds half a character, which is no text; correct it.")
    return data


def override(data: dict[str, Any], change: str) -> None:
    """Make a change `key.path=value`, as of --set, to plain data.

    Raises:
        ConfigError: it is none, or something on the way is no mapping.
    """
    key, equals, text = change.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {change}: write it as key.path=value, such as --set stop.generations=20.")
    set_key(data, key, parse_yaml(text, f"--set {change}"), f"--set {change}")


def set_key(data: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set a dotted key of a campaign's plain data; mappings on the way are made where there are none.

    Raises:
        ConfigError: naming `source`: something on the way is no mapping.
    """
    parts = key.split(".")
    place = data
    for part in parts[:-1]:
        child = place.get(part)
        if child is None:
            child = place[part] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"{source}: {part!r} is no mapping in this file.")
        place = child
    place[parts[-1]] = value


class _StrictLoader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:  # before they are all read, which takes half a minute a million
            loader: Any = self  # whose methods are not typed
            raise _fault(f"more than {MAX_NODES} values", loader.peek_event())
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError):  # `!!int no`, 30 February
            if not isinstance(node, yaml.ScalarNode):
                raise
            what = f"{quoted(node.value, LONGEST_VALUE)} is no {node.tag.rpartition(':')[2]}"
            raise _fault(f"{what}; correct it, or put it in quotes", node) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                raise _fault("merge keys (<<) are not read; write the keys out", key_node)
            # A list as a key is not built: with aliases in it, it may be as large as all memory.
            key = self.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                shown = quoted(key_node.value, LONGEST_VALUE) if isinstance(key_node, yaml.ScalarNode) else "of a pair"
                raise _fault(f"the key {shown} is no text; put it in quotes", key_node)
            if key in seen:
                raise _fault(f"the key {quoted(key, LONGEST_VALUE)} stands twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise _fault(f"a number of {len(node.value)} characters; {LONGEST_NUMBER} are the most", node)
        return super().construct_scalar(node)


# Plain data only: no sets, pairs or bytes, which a config has no use for.
_StrictLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag not in {f"tag:yaml.org,2002:{name}" for name in ("set", "omap", "pairs", "binary")}
}


def _fault(problem: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def _named(character: Any) -> str:
    code = character if isinstance(character, int) else ord(character)
    return f"U+{code:04X}, which YAML does not allow; save the file as plain UTF-8 text"


def _said(fault: object) -> str:
    """What PyYAML or Python says, in one line of moderate length; it may quote the file."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(fault)).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _bounded(data: Any, source: str, error: type[InputError]) -> None:
    """Refuse what aliases blow up: count nodes as if every alias were written out."""
    count, stack = 0, [(data, 0)]
    while stack:
        value, depth = stack.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise error(f"{source}: more than {MAX_NODES} values or {MAX_DEPTH} levels (aliases count in full).")
        if isinstance(value, (dict, list)):
            children = value.values() if isinstance(value, dict) else value
            stack.extend((child, depth + 1) for child in children)
