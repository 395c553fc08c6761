"""What importers of other tools' recipes share: the layers as those tools see them, and checks of what a file says."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from evoquant.errors import LONGEST_NAME, InputError, PrecisionError, quoted, shown_value, suggestion
from evoquant.models.torch_task import TorchTask
from evoquant.quantization.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evoquant.models.base import MeasuredTask
    from evoquant.profiles.model import ModelProfile

CONVOLUTIONS = tuple(f"Conv{kind}{rank}d" for kind in ("", "Transpose") for rank in (1, 2, 3))
WEIGHTED = ("Linear", "Embedding", *CONVOLUTIONS)
"""Names of the classes whose weights the tools quantize."""

DTYPES = {"float32": "FP32", "float": "FP32", "float16": "FP16", "half": "FP16", "bfloat16": "BF16"}
LARGEST_GROUP = 999_999
_SHOWN = 3
_BARE = re.compile(r"[\w.:*/+-]+", re.ASCII)


@dataclass(frozen=True)
class Site:
    """A layer of the network as a recipe may name it.

    Attributes:
        name: the layer's.
        classes: names of its module's class and of what that inherits from; empty where the layer is not the
            `weight` of a module, so that no recipe of another tool means it.
        shape: of the weight.
        channel_axis: axis of the output channels, None where the tensor is one slice.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    channel_axis: int | None

    @property
    def kind(self) -> str | None:
        """Which of `WEIGHTED` it is; None for everything that the tools leave alone."""
        return next((name for name in self.classes if name in WEIGHTED), None)


@dataclass(frozen=True)
class Imported:
    """A recipe of another tool, resolved for a network.

    Attributes:
        widths: layer → precision name, for the layers that it names.
        warnings: where it is only near what the other tool does.
    """

    widths: dict[str, str]
    warnings: tuple[str, ...]


class Foreign(Protocol):
    """A recipe of another tool, read and checked, that waits for the layers of a network."""

    def resolve(self, sites: Sequence[Site]) -> Imported:
        """Widths for these layers.

        Raises:
            InputError: it names none of them, or what it asks for does not fit; the message names the layer.
        """


def sites(task: MeasuredTask, profile: ModelProfile) -> tuple[Site, ...]:
    """The layers of a task's network; of a PyTorch network with the classes of its modules, else by type of layer."""
    classes = _module_classes(task) if isinstance(task, TorchTask) else {}
    by_type = not isinstance(task, TorchTask)
    return tuple(
        Site(
            layer.name,
            _usual_class(layer.type, len(layer.shape), layer.channel_axis) if by_type else classes[layer.name],
            layer.shape,
            layer.channel_axis,
        )
        for layer in profile.layers
    )


def _module_classes(task: TorchTask) -> dict[str, tuple[str, ...]]:
    modules = dict(task.network.named_modules())
    found = {}
    for layer in task.found:
        owner, _, key = layer.parameter.rpartition(".")
        names = [kind.__name__ for kind in type(modules[owner]).__mro__] if key == "weight" and owner in modules else []
        found[layer.name] = tuple(name for name in names if name not in ("Module", "object"))
    return found


def _usual_class(kind: str, rank: int, channel_axis: int | None) -> tuple[str, ...]:
    if kind in ("Linear", "Attention", "Classifier"):
        return ("Linear",)
    if kind == "Conv" and 3 <= rank <= 5:  # a transposed one has its outputs second
        return (f"Conv{'Transpose' if channel_axis == 1 else ''}{rank - 2}d",)
    return ("Embedding",) if kind == "Embedding" else ()


def fitting(site: Site, width: str, source: str) -> str:
    """`width`, if the layer's weights divide into its slices.

    Raises:
        InputError: they do not, or evoquant has no such precision.
    """
    try:
        precision = Precision.parse(width)
    except PrecisionError as error:
        raise InputError(f"{source}: layer {site.name!r}: {error}") from None
    if precision.granularity == "group" and site.kind in CONVOLUTIONS:
        raise InputError(
            f"{source}: layer {site.name!r} is a {site.kind}: groups there are cut along its kernel's last axis by "
            f"that tool, along a whole filter by evoquant; give it one scale a channel."
        )
    if not precision.fits(site.shape, site.channel_axis):
        row = math.prod(site.shape) // (1 if site.channel_axis is None else site.shape[site.channel_axis])
        raise InputError(
            f"{source}: layer {site.name!r}: groups of {precision.group_size} do not divide its {row} weights an "
            f"output channel; is the recipe for this network?"
        )
    return width


def unknown(source: str, name: str, sites: Iterable[Site]) -> InputError:
    """The error for a name that is no layer's."""
    close = suggestion(name[:LONGEST_NAME], [site.name for site in sites])
    return InputError(f"{source}: the network has no layer {quoted(name)}.{close}")


def own_numbers(kind: str) -> str:
    """The warning that every import begins with."""
    return f"read as {kind}: its allocation is measured with evoquant's own codes and scales, not with that tool's"


def shown(names: Sequence[str]) -> str:
    """A few of many names."""
    more = f" … ({len(names)})" if len(names) > _SHOWN else ""
    return ", ".join(named(name) for name in names[:_SHOWN]) + more


def named(value: Any, longest: int = LONGEST_NAME) -> str:
    """As `quoted`, but bare where it holds only letters, digits and a few signs."""
    text = value if isinstance(value, str) else shown_value(value)
    return text if len(text) <= longest and _BARE.fullmatch(text) else quoted(text, longest)


def dtype_width(config: Any, source: str) -> str | None:
    """The precision of whatever a checkpoint leaves alone, from its config.json; None where that says nothing.

    Raises:
        InputError: a type that evoquant does not have.
    """
    for part in (config, config.get("text_config") if isinstance(config, dict) else None):
        if isinstance(part, dict):
            name = part.get("dtype", part.get("torch_dtype"))
            if name is not None:
                width = DTYPES.get(str(name).removeprefix("torch."))
                if width is None:
                    raise InputError(f"{source}: dtype {quoted(name, 40)}; evoquant has float32, float16 and bfloat16.")
                return width
    return None


def a_dict(value: Any, place: str) -> dict[str, Any]:
    """`value`, which has to be a JSON object; `place` begins the message of the InputError."""
    if not isinstance(value, dict):
        raise InputError(f"{place}: should be a JSON object, not {shown_value(value)}.")
    return value


def strings(value: Any, place: str) -> tuple[str, ...]:
    """`value`, which has to be a JSON array of strings that are not empty, or null for none.

    Raises:
        InputError: it is not.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise InputError(f"{place}: should be an array of names, not {shown_value(value)}.")
    return tuple(value)


def integer(value: Any, place: str, low: int, high: int) -> int:
    """`value`, which has to be a whole number from `low` to `high`.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{place}: should be a whole number from {low} to {high}, not {shown_value(value)}.")
    return value


def flag(value: Any, place: str) -> bool:
    """`value`, which has to be true or false; `place` begins the message of the InputError."""
    if not isinstance(value, bool):
        raise InputError(f"{place}: should be true or false, not {shown_value(value)}.")
    return value
