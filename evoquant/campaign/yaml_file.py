"""YAML at the boundary: the safe constructors only, no repeated keys, no alias bombs."""

from __future__ import annotations

from typing import Any

import yaml

from evoquant.errors import ConfigError

MAX_NODES = 100_000
MAX_DEPTH = 50


def parse_yaml(text: str, source: str) -> Any:
    """`yaml.safe_load` that refuses repeated keys and alias bombs.

    Raises:
        ConfigError: naming `source` and the line.
    """
    try:
        data = _StrictLoader(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}: not valid YAML{place}: {getattr(error, 'problem', None) or error}.") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deep.") from None
    except ValueError as error:  # dates and numbers that YAML recognises and Python refuses
        raise ConfigError(f"{source}: {error}.") from None
    _bounded(data, source)
    return data


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is no text", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _bounded(data: Any, source: str) -> None:
    """Refuse what aliases blow up: count nodes as if every alias were written out."""
    count, stack = 0, [(data, 0)]
    while stack:
        value, depth = stack.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise ConfigError(f"{source}: more than {MAX_NODES} values or {MAX_DEPTH} levels (aliases count in full).")
        if isinstance(value, (dict, list)):
            children = value.values() if isinstance(value, dict) else value
            stack.extend((child, depth + 1) for child in children)
