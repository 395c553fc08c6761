"""The linter: what a deployment target would refuse, or quietly change, in a recipe.

    lint(recipe, "openvino") → findings; `refuse` raises where any is an error

Layer by layer the target's own rules decide (`profiles.targets`), the same that `deploy_to` narrows a search with; what
holds for every target stands here: ties, names, shapes, numbers that are no numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evoquant.errors import InputError, suggestion
from evoquant.profiles.targets import fused_groups, scheme, target_named
from evoquant.quantization.precision import Precision

if TYPE_CHECKING:
    from evoquant.export.recipe import Recipe
    from evoquant.export.recipe_schema import RecipeLayer
    from evoquant.profiles.model import ModelProfile
    from evoquant.profiles.targets import Target

SHOWN = 8
_NAMED = 4  # layers that one finding names
_NAN = 0x7F  # of FP8's E4M3, whatever its sign

Widths = Mapping[str, Precision]

QUANTIZES_ITSELF = ("executorch", "coreml")
"""Targets whose tools make codes anew, to the nearest: codes of somebody's own rounding do not come out as measured."""


@dataclass(frozen=True)
class Finding:
    """What a target has against a recipe.

    Attributes:
        layer: its name; None for what concerns several, or the whole recipe.
        severity: an `error` keeps a recipe from being exported, a `warning` does not.
        message: what is wrong, and what can be had instead.
    """

    layer: str | None
    severity: Literal["error", "warning"]
    message: str


def lint(recipe: Recipe, target: str, profile: ModelProfile | None = None) -> list[Finding]:
    """What a target has against a recipe: errors in the order of the layers, then those of several layers, warnings.

    Args:
        recipe: with its tensors they are looked at, too; without them only its text is.
        target: a key of `evoquant.profiles.targets.TARGETS`.
        profile: of the model that the recipe is for; names, shapes and ties are compared with it.

    Raises:
        InputError: no such target.
    """
    stack = target_named(target)
    widths = {layer.name: layer.width for layer in recipe.layers}
    errors: list[Finding] = []
    if recipe.rounding is not None and target in QUANTIZES_ITSELF:
        own = f"{target} makes its codes by itself, to the nearest; these were measured as {recipe.rounding} does"
        errors.append(Finding(None, "error", f"{own}: choose a target that takes codes"))
    for layer in recipe.layers:
        fault = stack.fault(layer, widths[layer.name])
        if fault is not None:
            errors.append(Finding(layer.name, "error", f"{layer.precision}: {fault}"))
        if recipe.tensors:
            errors += [Finding(layer.name, "error", text) for text in _bad_numbers(recipe, layer)]
    if profile is not None:
        errors += against_profile(recipe, profile)
    errors += [Finding(None, "error", text) for text in _ties(recipe, widths, profile)]
    if stack.fuses:
        errors += [Finding(None, "error", text) for text in _fused(recipe, widths)]
    return [*errors, *_warnings(recipe, stack, widths)]


def refuse(findings: Sequence[Finding], source: str) -> None:
    """Raise where any finding is an error.

    Args:
        findings: of `lint`.
        source: what the message begins with.

    Raises:
        InputError: listing at most 8 of them.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    lines = [f"  {_place(error)}{error.message}" for error in errors[:SHOWN]]
    if len(errors) > SHOWN:
        lines.append(f"  … and {len(errors) - SHOWN} more; `evoquant lint` lists them all")
    raise InputError("\n".join([f"{source}: cannot be deployed as it is:", *lines]))


def require_taken(layer: RecipeLayer, target: str) -> None:
    """Whether a target's rules take a layer at its precision, for whoever writes it.

    Args:
        layer: of a recipe.
        target: a key of `evoquant.profiles.targets.TARGETS`.

    Raises:
        InputError: they do not.
    """
    fault = target_named(target).fault(layer, layer.width)
    if fault is not None:
        raise InputError(f"layer {layer.name!r} at {layer.precision}: {fault}.")


def _place(finding: Finding) -> str:
    return "" if finding.layer is None else f"layer {finding.layer!r}: "


def _ties(recipe: Recipe, widths: Widths, profile: ModelProfile | None) -> Iterator[str]:
    """Layers that must share a width and do not, by the recipe's groups and by the profile's."""
    groups: dict[tuple[str, str], list[str]] = {}
    for source, layers in (("recipe", recipe.layers), ("profile", () if profile is None else profile.layers)):
        for layer in layers:
            if layer.tie_group is not None and layer.name in widths:
                groups.setdefault((source, layer.tie_group), []).append(layer.name)
    seen = set()
    for (_, group), names in groups.items():
        differ = len({widths[name].name for name in names}) > 1
        if differ and tuple(names) not in seen:
            seen.add(tuple(names))
            yield f"layers of the tie group {group!r} differ ({_listed(names, widths)}); give them one width"


def _fused(recipe: Recipe, widths: Widths) -> Iterator[str]:
    """Layers that the consumer merges, and whose formats differ."""
    for names in fused_groups(recipe.layers):
        if len({scheme(widths[name]) for name in names}) > 1:
            yield (
                f"the consumer merges these layers and takes the first one's format for all, unchecked "
                f"({_listed(names, widths)}); give them one width, or search with deploy_to"
            )


def _listed(names: Sequence[str], widths: Widths) -> str:
    """Layers with their widths: the first of each width, so that the difference shows."""
    first = {widths[name].name: name for name in reversed(names)}
    kept = [name for name in names if name in first.values()][:_NAMED]
    text = ", ".join(f"{name}: {widths[name].name}" for name in kept)
    return text if len(kept) == len(names) else f"{text}, … {len(names)} in all"


def against_profile(recipe: Recipe, profile: ModelProfile) -> Iterator[Finding]:
    """Names that match no layer, layers without a width, and shapes that differ."""
    known = {layer.name: layer for layer in profile.layers}
    for layer in recipe.layers:
        own = known.pop(layer.name, None)
        if own is None:
            text = f"{profile.name} has no such layer.{suggestion(layer.name, [one.name for one in profile.layers])}"
            yield Finding(layer.name, "error", text)
        elif (own.shape, own.channel_axis) != (layer.shape, layer.channel_axis):
            text = (
                f"is of shape {layer.shape}, channels on axis {layer.channel_axis}, but of {own.shape} and "
                f"{own.channel_axis} in {profile.name}; make the recipe anew for this model"
            )
            yield Finding(layer.name, "error", text)
    for name in known:
        text = f"{profile.name} has this layer, and the recipe says nothing of it; give it a width (FP32 leaves it)"
        yield Finding(name, "error", text)


def _bad_numbers(recipe: Recipe, layer: RecipeLayer) -> Iterator[str]:
    """Scales, codes and values that no consumer can make weights of."""
    precision = layer.width
    again = "make the recipe anew"
    if not precision.has_scales:
        if not np.isfinite(recipe.values(layer)).all():
            yield f"some of its weights are not finite; {again} from a network whose weights are"
        return
    quantized = recipe.quantized(layer)
    scales = quantized.scales.astype(np.float32)
    wrong = int(np.count_nonzero(~(np.isfinite(scales) & (scales > 0))))
    if wrong:
        yield f"{wrong} of its {scales.size} scales are not finite and above 0; {again}"
    low, high = _range_of(precision)
    parts: dict[str, Any] = {"codes": quantized.codes, "zero points": quantized.zero_points}
    for part, numbers in parts.items():
        if numbers is not None and numbers.size and (int(numbers.min()) < low or int(numbers.max()) > high):
            yield f"its {part} leave {low} to {high}, which {layer.precision} has; {again}"
    if precision.format == "FP8" and ((quantized.codes.astype(np.uint8) & _NAN) == _NAN).any():
        yield f"some of its codes stand for no number; {again}"


def _range_of(precision: Precision) -> tuple[int, int]:
    """The least and the largest code that a consumer can store."""
    if not precision.is_integer or precision.asymmetric:
        return 0, (1 << precision.code_bits) - 1
    return -(1 << precision.code_bits - 1), (1 << precision.code_bits - 1) - 1


def _warnings(recipe: Recipe, target: Target, widths: Widths) -> Iterator[Finding]:
    """What the target takes and people should know; the same text once, with its layers."""
    found: dict[str, list[str]] = {}
    for layer in recipe.layers:
        if target.fault(layer, widths[layer.name]) is not None:
            continue
        for text in target.doubts(layer, widths[layer.name]):
            found.setdefault(text, []).append(layer.name)
    for text, names in found.items():
        if len(names) == 1:
            yield Finding(names[0], "warning", text)
        else:
            yield Finding(None, "warning", f"{_some(names)}: {text}")
    for names in _same_weights(recipe):
        text = "hold the same weights; where a consumer ties them, it keeps one, and the promised size counts both"
        yield Finding(None, "warning", f"{_some(names)} {text}")
    for text in target.notes:
        yield Finding(None, "warning", text)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f", … {len(names)} in all" if len(names) > _NAMED else "")


def _same_weights(recipe: Recipe) -> Iterator[list[str]]:
    """Matrices with equal numbers under several names; constant ones, such as zeros, are no sign of a tie."""
    alike: dict[tuple[str, str], list[str]] = {}
    for layer in recipe.layers:
        parts = [recipe.tensors.get(f"{layer.name}:{part}") for part in ("codes", "scales", "zero_points", "values")]
        held = [numbers for numbers in parts if numbers is not None]
        if len(layer.shape) > 1 and any(numbers.min() != numbers.max() for numbers in held):
            content = hashlib.sha256(repr(layer.shape).encode())
            for numbers in held:
                content.update(np.ascontiguousarray(numbers).tobytes())
            alike.setdefault((layer.precision, content.hexdigest()), []).append(layer.name)
    for names in alike.values():
        if len(names) > 1:
            yield names
