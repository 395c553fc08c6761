"""What NVIDIA ModelOpt's checkpoints say of themselves (`hf_quant_config.json`), read as an allocation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evoquant.campaign.imported_layers import (
    LARGEST_GROUP,
    Imported,
    Site,
    a_dict,
    fitting,
    integer,
    named,
    own_numbers,
    shown,
    strings,
    unknown,
)
from evoquant.campaign.imported_modelopt import KIND
from evoquant.campaign.imported_patterns import MOST, WILDCARDS, wildcard
from evoquant.errors import InputError, quoted

_ALGORITHMS = {"FP8": "FP8-tensor", "FP8_PER_CHANNEL_PER_TOKEN": "FP8-channel", "W8A16": "INT8-channel"}
_GROUPED = {"W4A16_AWQ": "INT4", "W4A16": "INT4"}
_NEAR_INPUTS = {"W8A8_SQ_PER_CHANNEL": "INT8-channel-a8"}
_KNOWN = (*_ALGORITHMS, *_GROUPED, *_NEAR_INPUTS)


@dataclass(frozen=True)
class Checkpoint:
    """What `hf_quant_config.json` says.

    Attributes:
        source: for messages.
        layers: layer → precision, where it says so layer by layer.
        uniform: precision of all Linear layers, where it does not.
        exclude: shell patterns for layers that stay as they are.
        rest: their precision.
        warnings: what the file says beyond that.
    """

    source: str
    layers: Mapping[str, str]
    uniform: str | None
    exclude: tuple[str, ...]
    rest: str
    warnings: tuple[str, ...]

    def resolve(self, sites: Sequence[Site]) -> Imported:
        """Widths of all layers; see `Foreign`."""
        known = {site.name: site for site in sites}
        widths = dict.fromkeys(known, self.rest)
        for layer, width in self.layers.items():
            if layer not in known:
                raise unknown(f"{self.source}: quantized_layers", layer, sites)
            widths[layer] = fitting(known[layer], width, self.source)
        found = {pattern: wildcard(pattern, list(known), self.source) for pattern in self.exclude}
        if self.uniform is not None:
            excluded = {name for names in found.values() for name in names}
            for site in sites:
                if site.kind == "Linear" and site.name not in excluded:
                    widths[site.name] = fitting(site, self.uniform, self.source)
        lost = [pattern for pattern, names in found.items() if not names]
        more = (f"exclude_modules: {shown(lost)}: no layer of this network",) if lost else ()
        return Imported(widths, (own_numbers(KIND), *self.warnings, *more))


def checkpoint(data: Mapping[str, Any], rest: str | None, source: str) -> Checkpoint:
    """The recipe that a ModelOpt checkpoint states.

    Args:
        data: the value of `quantization` in hf_quant_config.json.
        rest: precision of what is not quantized; None where the file does not say.
        source: for messages.

    Raises:
        InputError: it is damaged, or states what evoquant cannot measure; the message names the layer.
    """
    warnings: list[str] = []
    layers: dict[str, str] = {}
    uniform = None
    algorithm = data.get("quant_algo")
    if algorithm == "MIXED_PRECISION" or data.get("quantized_layers"):
        given = a_dict(data.get("quantized_layers"), f"{source}: quantized_layers")
        for layer, config in given.items():
            place = f"{source}: quantized_layers: {named(layer)}"
            layers[layer] = _of_algorithm(a_dict(config, place), place, warnings)
    elif algorithm is not None:
        uniform = _of_algorithm(data, source, warnings)
    if data.get("kv_cache_quant_algo"):
        warnings.append("kv_cache_quant_algo: the cache of keys and values is not quantized here")
    exclude = strings(data.get("exclude_modules"), f"{source}: exclude_modules")
    if len(exclude) > MOST and any(mark in name for name in exclude for mark in WILDCARDS):
        raise InputError(f"{source}: exclude_modules: has more than {MOST} patterns; name layers exactly.")
    if rest is None:
        rest = "FP32"
        warnings.append("no config.json beside it says a dtype: what is not quantized is measured at FP32")
    return Checkpoint(source, layers, uniform, exclude, rest, tuple(dict.fromkeys(warnings)))


def _of_algorithm(config: Mapping[str, Any], place: str, warnings: list[str]) -> str:
    name = config.get("quant_algo")
    if name not in _KNOWN or not isinstance(name, str):
        raise InputError(
            f"{place}: quant_algo {quoted(name, 60)}, which evoquant has nothing like; it has {', '.join(_KNOWN)}."
        )
    if name in _NEAR_INPUTS:
        warnings.append(f"{name}: inputs have one scale for all in ModelOpt, smoothed; measured with one a token")
        return _NEAR_INPUTS[name]
    if name in _ALGORITHMS:
        if name.startswith("FP8"):
            warnings.append(f"{name}: of weights; should inputs be FP8, too, that is not measured")
        return _ALGORITHMS[name]
    if config.get("group_size") is None:
        raise InputError(f"{place}: {name}: gives no group_size; hf_quant_config.json has it.")
    size = integer(config["group_size"], f"{place}: group_size", 1, LARGEST_GROUP)
    if config.get("pre_quant_scale"):
        warnings.append(f"{name}: scales that go before the weights (pre_quant_scale) are not applied")
    return f"{_GROUPED[name]}-g{size}{'-asym' if config.get('has_zero_point') else ''}"
