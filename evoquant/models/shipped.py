"""A PyTorch module as plain data and back, so that another process can measure it: classes by name, tensors as bytes.

Nothing is pickled: what comes back is made of classes and functions that the other process can import, by
`Class.__new__` and the module's own state, as `copy.copy` does it.

    plain = shipped(network)        rebuilt(plain) → a network that computes the same
"""

from __future__ import annotations

import enum
import functools
import importlib
import sys
import types
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import EvoquantError, InputError, quoted, raised_by

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_GROUPS: tuple[type, ...] = (list, tuple, set, frozenset)
_MAPS: tuple[type, ...] = (dict, OrderedDict)
_BUILT_IN = ("torch", "torch.nn.functional", "math", "operator", "numpy")  # whose functions do not say where they are
REMEDY = "or leave executor= out, and it is measured in this process"

Node = list[Any]
"""Kind and contents, in which other objects are numbers of nodes."""


class _Unsendable(Exception):
    """What and why."""


def shipped(thing: Any, what: str, *, placed: bool = False) -> dict[str, Any]:
    """A module, a metric or a function as plain data.

    Args:
        thing: of classes and functions that other processes can import.
        what: messages begin with it.
        placed: tensors are arrays instead of bytes, which Ray's object store holds once for all workers of a node; the
            network's parameters lie on them then.

    Raises:
        InputError: something in it lives in this process alone; the message says where and what to do.
    """
    writer = _Writer(placed)
    try:
        root = writer.add(thing, "")
    except _Unsendable as error:
        raise InputError(f"{what}: cannot be sent to Ray's workers: {error}; {REMEDY}.") from None
    except RecursionError:
        raise InputError(f"{what}: cannot be sent to Ray's workers: it is nested too deeply; {REMEDY}.") from None
    return {"nodes": writer.nodes, "root": root}


def rebuilt(data: dict[str, Any], what: str) -> Any:
    """What `shipped` was given, in another process.

    Raises:
        InputError: a class or a function is not there, or does not take its state.
    """
    try:
        return _Reader(data["nodes"]).made(data["root"])
    except EvoquantError:
        raise
    except Exception as error:  # whatever somebody's own classes may raise
        raise InputError(f"{what}: cannot be built anew in a worker: {raised_by(error)}") from error


def named(thing: Any) -> str:
    """`module:name` under which other processes find a class or a function.

    Raises:
        _Unsendable: there is none.
    """
    short = str(getattr(thing, "__name__", ""))
    name = str(getattr(thing, "__qualname__", short))
    module = str(getattr(thing, "__module__", None))
    sort = "the class" if isinstance(thing, type) else "the function"
    if module == "__main__":
        raise _Unsendable(
            f"{sort} {quoted(name)} was defined in the running program or notebook, which they do not import; put it "
            f"into a module (a .py file) and import it from there"
        )
    for place, known in ((module, name), *((place, short) for place in _BUILT_IN)):
        if _found(place, known) is thing:
            return f"{place}:{known}"
    if "<" in name:
        raise _Unsendable(
            f"{sort} {quoted(name)} has no name that they could import; define it at the top of a module (a .py file)"
        )
    raise _Unsendable(f"{sort} {quoted(name)} is not found in {quoted(module)}, where they would look for it")


def _found(module: str, name: str) -> Any:
    try:
        return _walked(module, name)
    except (ImportError, AttributeError, ValueError):
        return None


def _walked(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class _Writer:
    """Objects → nodes, each object once."""

    def __init__(self, placed: bool) -> None:
        self.nodes: list[Node] = []
        self._placed = placed
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # an id is an object's as long as that lives

    def add(self, thing: Any, path: str) -> int:
        """The number of an object's node.

        Raises:
            _Unsendable: it, or something in it, cannot be told in plain data.
        """
        known = self._numbers.get(id(thing))
        if known is not None:
            return known
        number = self._numbers[id(thing)] = len(self.nodes)
        self._kept.append(thing)
        self.nodes.append([])  # its place, for what refers back to it
        self.nodes[number] = self._node(thing, path)
        return number

    def _node(self, thing: Any, path: str) -> Node:
        kind = type(thing)
        if kind in _PLAIN:
            return ["plain", thing]
        if kind in _GROUPS:
            return [kind.__name__, [self.add(item, f"{path}[{place}]") for place, item in enumerate(thing)]]
        if kind in _MAPS:
            items = [(self.add(key, path), self.add(value, _below(path, key))) for key, value in thing.items()]
            return [kind.__name__, items]
        if kind is slice:
            return ["slice", [self.add(part, path) for part in (thing.start, thing.stop, thing.step)]]
        if isinstance(thing, (np.ndarray, np.generic)) and kind.__module__ == "numpy" and thing.dtype.kind in "biufc":
            return ["array" if kind is np.ndarray else "number", thing.dtype.str, list(thing.shape), thing.tobytes()]
        return self._of_torch(thing, path) or self._of_code(thing, path)

    def _of_torch(self, thing: Any, path: str) -> Node | None:
        torch = sys.modules.get("torch")  # without it there are none of these, and it need not be installed
        if torch is None:
            return None
        kind = type(thing)
        if isinstance(thing, torch.Tensor):
            return self._tensor(thing, path)
        if kind is torch.Size:
            return ["size", [int(length) for length in thing]]
        if kind in (torch.dtype, torch.device):
            return [kind.__name__, str(thing).removeprefix("torch.")]
        return None

    def _of_code(self, thing: Any, path: str) -> Node:
        """Classes, functions, and objects of a class."""
        kind = type(thing)
        if isinstance(thing, types.MethodType):
            return ["method", self.add(thing.__self__, path), thing.__func__.__name__]
        if kind is functools.partial:
            return ["partial", *(self.add(part, path) for part in (thing.func, thing.args, thing.keywords))]
        name = self._name(thing if isinstance(thing, type) or _is_function(thing) else kind, path)
        if isinstance(thing, type) or _is_function(thing):
            return ["named", name]
        if isinstance(thing, enum.Enum):
            return ["member", name, thing.name]
        if not _is_plain_class(kind):
            raise _Unsendable(f"{_at(path)}the {kind.__name__} holds more than its attributes")
        return ["object", name, self.add(thing.__getstate__(), path)]

    def _name(self, thing: Any, path: str) -> str:
        try:
            return named(thing)
        except _Unsendable as error:
            raise _Unsendable(f"{_at(path)}{error}") from None

    def _tensor(self, tensor: torch.Tensor, path: str) -> Node:
        import torch

        kind = type(tensor)
        if kind not in (torch.Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
            raise _Unsendable(f"{_at(path)}a {kind.__name__} with the layout {tensor.layout} is no plain tensor")
        plain = tensor.detach().cpu()
        # Bits may depend on how a tensor lies in memory: channels last, say, or transposed.
        strides = plain.stride()
        order = sorted(range(plain.ndim), key=lambda axis: (-strides[axis], axis))
        raw = plain.permute(order).contiguous().reshape(-1).view(torch.uint8)
        dtype = str(tensor.dtype).removeprefix("torch.")
        flags = [kind.__name__, bool(tensor.requires_grad)]
        bits = raw.numpy() if self._placed else raw.numpy().tobytes()
        return ["tensor", flags, dtype, list(plain.shape), order, bits]


class _Reader:
    """Nodes → objects, each once."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._made: dict[int, Any] = {}

    def made(self, number: int) -> Any:
        """The object of a node."""
        if number in self._made:
            return self._made[number]
        kind, *rest = self._nodes[number]
        if kind in ("dict", "OrderedDict", "list", "set", "object"):  # what may hold itself is there before it is full
            return self._filled(number, kind, rest)
        thing = self._made[number] = self._whole(kind, rest)
        return thing

    def _filled(self, number: int, kind: str, rest: list[Any]) -> Any:
        if kind == "object":
            made = _resolved(rest[0])
            thing = self._made[number] = made.__new__(made)
            _restore(thing, self.made(rest[1]))
            return thing
        thing = self._made[number] = {"dict": dict, "OrderedDict": OrderedDict, "list": list, "set": set}[kind]()
        if kind in ("dict", "OrderedDict"):
            for key, value in rest[0]:
                thing[self.made(key)] = self.made(value)
        elif kind == "list":
            thing.extend(self.made(item) for item in rest[0])
        else:
            thing.update(self.made(item) for item in rest[0])
        return thing

    def _whole(self, kind: str, rest: list[Any]) -> Any:
        if kind == "plain":
            return rest[0]
        if kind in ("tuple", "frozenset"):
            return {"tuple": tuple, "frozenset": frozenset}[kind](self.made(item) for item in rest[0])
        if kind == "tensor":
            return _read_tensor(*rest)
        if kind in ("array", "number"):
            array = np.frombuffer(bytearray(rest[2]), np.dtype(rest[0])).reshape(rest[1])
            return array if kind == "array" else array[()]
        if kind in ("size", "dtype", "device"):  # a metric of an ONNX network holds none: PyTorch need not be there
            import torch

            makers: dict[str, Any] = {"size": torch.Size, "dtype": functools.partial(getattr, torch)}
            return makers.get(kind, torch.device)(rest[0])
        if kind == "slice":
            return slice(*map(self.made, rest[0]))
        if kind == "method":
            return getattr(self.made(rest[0]), rest[1])
        if kind == "partial":
            function, arguments, keywords = map(self.made, rest)
            return functools.partial(function, *arguments, **keywords)
        found = _resolved(rest[0])
        return found[rest[1]] if kind == "member" else found


def _read_tensor(
    flags: list[Any], dtype: str, shape: list[int], order: list[int], raw: bytes | NDArray[np.uint8]
) -> Any:
    import torch

    from evoquant.models.networks import tensor_on

    kind, wants = flags
    bits = getattr(torch, dtype)
    if not len(raw):
        flat = torch.empty(0, dtype=bits)
    elif isinstance(raw, np.ndarray):  # a parameter lies on it; what a network may write into, as a buffer, gets a copy
        flat = (tensor_on(raw) if kind == "Parameter" else torch.from_numpy(raw.copy())).view(bits)
    else:
        flat = torch.frombuffer(bytearray(raw), dtype=bits)
    laid = flat.reshape([shape[axis] for axis in order])
    tensor = laid.permute([order.index(axis) for axis in range(len(order))])
    return torch.nn.Parameter(tensor, requires_grad=wants) if kind == "Parameter" else tensor.requires_grad_(wants)


def _resolved(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return _walked(module, attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{name}: cannot be imported in a worker: {error}. Is it on PYTHONPATH there?") from None


def _restore(thing: Any, state: Any) -> None:
    """As `copy.copy` gives an object its state."""
    if hasattr(thing, "__setstate__"):
        thing.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        vars(thing).update(attributes)
    for name, value in (slots or {}).items():
        object.__setattr__(thing, name, value)


def _is_function(thing: Any) -> bool:
    return isinstance(thing, (types.FunctionType, types.BuiltinFunctionType, np.ufunc)) or (
        type(thing).__name__ == "builtin_function_or_method"
    )


def _is_plain_class(kind: type) -> bool:
    """Whether an object of a class is no more than its attributes."""
    ways = ("__new__", "__reduce__", "__reduce_ex__")
    return all(getattr(kind, way) is getattr(object, way) for way in ways)


def _below(path: str, key: Any) -> str:
    """The path of an attribute, without the tables that PyTorch keeps them in."""
    if key in ("_modules", "_parameters", "_buffers") or not isinstance(key, str):
        return path
    return f"{path}.{key}" if path else key


def _at(path: str) -> str:
    return f"{quoted(path)}: " if path else ""
