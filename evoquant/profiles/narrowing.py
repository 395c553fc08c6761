"""A profile kept to what deployment targets take, for `deploy_to`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from evoquant.errors import InputError
from evoquant.profiles.targets import Target, fused_groups, target_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.profiles.model import LayerProfile, ModelProfile
    from evoquant.quantization.precision import Menu


def constrained(profile: ModelProfile, menu: Menu, targets: Sequence[str]) -> ModelProfile:
    """The profile with what all of these targets can take: narrower `allowed`, and fused layers tied.

    Raises:
        InputError: no such target, or a layer (or layers that share a width) cannot be deployed at any width of the
            menu; the message says why.
    """
    chosen = {name: target_named(name) for name in targets}
    layers = [_narrowed(layer, menu, chosen) for layer in profile.layers]
    if any(target.fuses for target in chosen.values()):
        layers = _tied(layers, fused_groups(layers))
        _check_ties(layers, menu)
    return replace(profile, layers=tuple(layers))


def _narrowed(layer: LayerProfile, menu: Menu, targets: Mapping[str, Target]) -> LayerProfile:
    faults = {}
    for precision in menu:
        if layer.allows(precision):
            faults[precision.name] = next(
                (f"{name}: {why}" for name, target in targets.items() if (why := target.excludes(layer, precision))),
                None,
            )
    allowed = tuple(name for name, fault in faults.items() if fault is None)
    if not allowed:
        reasons = list(dict.fromkeys(fault for fault in faults.values() if fault)) or ["its own list allows none"]
        raise InputError(
            f"deploy_to: layer {layer.name!r} ({layer.type}, {'x'.join(map(str, layer.shape))}) cannot be deployed at "
            f"any width of the menu {', '.join(menu.names)}. {'; '.join(reasons[:3])}. Widen the menu, or leave the "
            f"target out."
        )
    return layer if len(allowed) == len(menu) else replace(layer, allowed=allowed)


def _check_ties(layers: Sequence[LayerProfile], menu: Menu) -> None:
    groups: dict[str, list[LayerProfile]] = {}
    for layer in layers:
        if layer.tie_group is not None:
            groups.setdefault(layer.tie_group, []).append(layer)
    for members in groups.values():
        if not any(all(layer.allows(precision) for layer in members) for precision in menu):
            options = "; ".join(
                f"{layer.name}: {', '.join(p.name for p in menu if layer.allows(p))}" for layer in members[:4]
            )
            raise InputError(
                f"deploy_to: {len(members)} layers are fused and must share a width, but nothing of the menu is "
                f"possible for all of them ({options}). Widen the menu, or leave the target out."
            )


def _tied(layers: Sequence[LayerProfile], groups: Sequence[tuple[str, ...]]) -> list[LayerProfile]:
    """Tie the members of each group with each other and with all that they are tied to already."""
    group_of = {layer.name: layer.tie_group for layer in layers}
    for names in groups:
        merged = {group_of[name] for name in names} - {None}
        label = next((group_of[name] for name in names if group_of[name]), f"{names[0]}+{len(names) - 1}")
        for name, group in group_of.items():
            if name in names or (group is not None and group in merged):
                group_of[name] = label
    return [
        layer if layer.tie_group == group_of[layer.name] else replace(layer, tie_group=group_of[layer.name])
        for layer in layers
    ]
