"""NVIDIA ModelOpt's recipes read as allocations: a `quant_cfg`, and what its checkpoints say (`hf_quant_config.json`).

A `quant_cfg` is a list of entries for quantizers, of which later ones win, as `mtq.quantize` of 0.47.0 takes it; the
older dict, name → attributes, is the same in the order of its keys. Each Linear, convolution and Embedding has a
`weight_quantizer`; it and the `input_quantizer` are on, at 8 bits, until an entry says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evoquant.campaign.imported_layers import (
    CONVOLUTIONS,
    LARGEST_GROUP,
    WEIGHTED,
    Imported,
    Site,
    a_dict,
    fitting,
    flag,
    integer,
    own_numbers,
    strings,
    unknown,
)
from evoquant.campaign.imported_patterns import MOST, WILDCARDS, wildcard
from evoquant.errors import InputError, suggestion

KIND = "ModelOpt"
WEIGHT, INPUT, OUTPUT = "weight_quantizer", "input_quantizer", "output_quantizer"
_SCOPES = {f"nn.{name}": name for name in WEIGHTED}
_REFUSED = ("bias", "rotate", "backend", "unsigned", "use_constant_amax")
_NO_MATTER = (
    *("enable", "effective_bits", "fake_quant", "narrow_range", "learn_amax", "trt_high_precision_dtype", "calibrator"),
    *("pass_through_bwd", "backend_extra_args", "constant_amax"),
)
_READ = ("num_bits", "axis", "type", "block_sizes")
_E4M3 = [4, 3]

_ALGORITHMS = {"FP8": "FP8-tensor", "FP8_PER_CHANNEL_PER_TOKEN": "FP8-channel", "W8A16": "INT8-channel"}
_GROUPED = {"W4A16_AWQ": "INT4", "W4A16": "INT4"}
_NEAR_INPUTS = {"W8A8_SQ_PER_CHANNEL": "INT8-channel-a8"}
_KNOWN = (*_ALGORITHMS, *_GROUPED, *_NEAR_INPUTS)


@dataclass(frozen=True)
class Entry:
    """One entry of a `quant_cfg`.

    Attributes:
        name: a shell pattern for names of quantizers.
        cfg: attributes that replace all of a quantizer's; None where it is only switched.
        enable: whether it is on.
        scope: name of a class, whose modules alone are meant; None for all.
    """

    name: str
    cfg: Mapping[str, Any] | None
    enable: bool
    scope: str | None


@dataclass
class _Quantizer:
    """What a quantizer is at last."""

    cfg: Mapping[str, Any]
    on: bool
    place: str = "quant_cfg"


@dataclass(frozen=True)
class QuantCfg:
    """A checked `quant_cfg`: entries in order, and the precision of what has no quantizer that is on."""

    source: str
    entries: tuple[Entry, ...]
    rest: str
    warnings: tuple[str, ...]

    def resolve(self, sites: Sequence[Site]) -> Imported:
        """Widths of all layers; see `Foreign`."""
        quantizers: dict[str, _Quantizer] = {}
        owners = {site.name: site for site in sites}
        for site in sites:
            if site.kind is not None:
                axis = None if site.kind == "Embedding" else 0
                quantizers[f"{site.name}.{WEIGHT}"] = _Quantizer({"axis": axis}, on=True)
                quantizers[f"{site.name}.{INPUT}"] = _Quantizer({}, on=site.kind != "Embedding")
                quantizers[f"{site.name}.{OUTPUT}"] = _Quantizer({}, on=False)
        names = list(quantizers)
        for index, entry in enumerate(self.entries):
            for name in self._meant(entry, names, sites):
                owner = owners[name.rpartition(".")[0]]
                if entry.scope is not None and entry.scope not in owner.classes:
                    continue
                if name.endswith(INPUT) and owner.kind == "Embedding":
                    continue  # of tokens: it stays off whatever is said
                one = quantizers[name]
                one.on = entry.enable
                if entry.cfg is not None:
                    one.cfg, one.place = entry.cfg, f"quant_cfg entry {index + 1}"
        warnings = [own_numbers(KIND), *self.warnings]
        widths = {}
        for site in sites:
            if site.kind is None:
                widths[site.name] = self.rest
            else:
                weight, inputs, outputs = (quantizers[f"{site.name}.{name}"] for name in (WEIGHT, INPUT, OUTPUT))
                widths[site.name] = self._width(site, weight, inputs, outputs, warnings)
        return Imported(widths, tuple(dict.fromkeys(warnings)))

    def _meant(self, entry: Entry, names: Sequence[str], sites: Sequence[Site]) -> list[str]:
        """The quantizers that an entry names.

        Raises:
            InputError: it switches one on that is not there.
        """
        found = wildcard(entry.name, names, self.source)
        exact = "*" not in entry.name and "?" not in entry.name
        if not found and exact and entry.enable:
            layer = entry.name.rpartition(".")[0] or entry.name
            if layer in [site.name for site in sites]:
                raise InputError(f"{self.source}: quant_cfg: ModelOpt has no quantizer {entry.name[:200]!r}.")
            raise unknown(f"{self.source}: quant_cfg: {entry.name[:200]!r}", layer[:200], sites)
        return found

    def _width(self, site: Site, weight: _Quantizer, inputs: _Quantizer, outputs: _Quantizer, notes: list[str]) -> str:
        place = f"{self.source}: layer {site.name!r}"
        if outputs.on:
            raise InputError(f"{place}: {outputs.place} quantizes its outputs; evoquant quantizes weights and inputs.")
        if not weight.on:
            if inputs.on:
                raise InputError(
                    f"{place}: {inputs.place} quantizes its inputs, but its weights stay as they are; evoquant "
                    f"quantizes inputs beside integer weights."
                )
            return self.rest
        width = _weights(weight.cfg, site, f"{place}: {weight.place}")
        if inputs.on:
            per_token = _inputs(inputs.cfg, f"{place}: {inputs.place}")
            if not width.startswith("INT"):
                raise InputError(f"{place}: evoquant quantizes inputs beside integer weights, not beside {width}.")
            width = f"{width}-a8"
            if not per_token:
                notes.append("inputs have one scale for all in ModelOpt, measured with one a token, found as they come")
        return fitting(site, width, self.source)


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
                raise unknown(f"{self.source}: quantized_layers", layer[:200], sites)
            widths[layer] = fitting(known[layer], width, self.source)
        if self.uniform is not None:
            excluded: set[str] = set()
            for pattern in self.exclude:
                excluded.update(wildcard(pattern, list(known), self.source))
            for site in sites:
                if site.kind == "Linear" and site.name not in excluded:
                    widths[site.name] = fitting(site, self.uniform, self.source)
        return Imported(widths, (own_numbers(KIND), *self.warnings))


def quant_cfg(data: Mapping[str, Any], rest: str | None, source: str) -> QuantCfg:
    """The recipe of `{"quant_cfg": …, "algorithm": …}`.

    Args:
        data: that object.
        rest: precision of what is not quantized; None where nothing says.
        source: for messages.

    Raises:
        InputError: it is damaged, or asks for what evoquant cannot measure; the message names the entry.
    """
    given = data["quant_cfg"]
    if isinstance(given, dict):
        given = [{key: value} for key, value in given.items()]
    if not isinstance(given, list):
        raise InputError(f"{source}: quant_cfg: should be an array of entries, or an object of them.")
    entries: list[Entry] = []
    for index, raw in enumerate(given):
        entries += _entries(raw, f"{source}: quant_cfg entry {index + 1}")
    if sum(any(mark in entry.name for mark in WILDCARDS) for entry in entries) > MOST:
        raise InputError(f"{source}: has more than {MOST} patterns; name layers exactly.")
    warnings = []
    algorithm = data.get("algorithm")
    method = algorithm.get("method") if isinstance(algorithm, dict) else algorithm
    if method not in (None, "max"):
        warnings.append(f"algorithm {str(method)[:60]!r}: changes weights or scales first; measured without it")
    if rest is None:
        rest = "FP32"
        warnings.append("what it does not quantize is measured at FP32")
    return QuantCfg(source, tuple(entries), rest, tuple(warnings))


def _entries(raw: Any, place: str) -> list[Entry]:
    """One entry in the list's form, or those of a name or class → attributes, the older form."""
    entry = a_dict(raw, place)
    if "quantizer_name" in entry:
        scope = entry.get("parent_class")
        return [_entry(entry["quantizer_name"], entry.get("cfg"), entry.get("enable"), scope, place)]
    found = []
    for name, value in entry.items():
        if name.startswith("nn."):
            inner = a_dict(value, f"{place}: {name[:60]}")
            found += [_older(key, attributes, name, f"{place}: {name[:60]}") for key, attributes in inner.items()]
        else:
            found.append(_older("*" if name == "default" else name, value, None, place))
    if not found:
        raise InputError(f"{place}: is empty; it gives a quantizer_name, and cfg or enable.")
    return found


def _older(name: str, value: Any, scope: str | None, place: str) -> Entry:
    attributes = a_dict(value, f"{place}: {name[:60]}") if not isinstance(value, list) else {"cfg": value}
    cfg = value if isinstance(value, list) else {k: v for k, v in attributes.items() if k != "enable"}
    return _entry(name, cfg or None, attributes.get("enable"), scope, place)


def _entry(name: Any, cfg: Any, enable: Any, scope: Any, place: str) -> Entry:
    if not isinstance(name, str) or not name:
        raise InputError(f"{place}: quantizer_name: should be a name or a shell pattern.")
    if cfg is None and enable is None:
        raise InputError(f"{place}: gives neither cfg nor enable.")
    if isinstance(cfg, list):
        raise InputError(f"{place}: quantizes twice, one after the other; evoquant quantizes once.")
    if scope is not None and scope not in _SCOPES:
        raise InputError(
            f"{place}: parent_class {str(scope)[:60]!r} is not known.{suggestion(str(scope)[:60], _SCOPES)}"
        )
    on = True if enable is None else flag(enable, f"{place}: enable")
    return Entry(
        name, None if cfg is None else a_dict(cfg, f"{place}: cfg"), on, None if scope is None else _SCOPES[scope]
    )


def _attributes(cfg: Mapping[str, Any], place: str) -> None:
    """Refuse what changes the meaning of a quantizer."""
    for key, value in cfg.items():
        if key in _REFUSED and value and not (isinstance(value, dict) and value.get("enable") is False):
            raise InputError(f"{place}: {key}: evoquant has no such quantizer; leave it out.")
        if key not in (*_REFUSED, *_NO_MATTER, *_READ):
            raise InputError(f"{place}: unknown key {key[:60]!r}.{suggestion(key[:60], _READ)}")


def _weights(cfg: Mapping[str, Any], site: Site, place: str) -> str:
    _attributes(cfg, place)
    slices = _slices(cfg, site, place)
    bits = cfg.get("num_bits", 8)
    if bits == _E4M3:
        return f"FP8-{slices}"
    if isinstance(bits, list):
        raise InputError(f"{place}: num_bits {str(bits)[:40]}: of floats evoquant has E4M3, [4, 3], alone.")
    return f"INT{integer(bits, f'{place}: num_bits', 2, 8)}-{slices}"


def _slices(cfg: Mapping[str, Any], site: Site, place: str) -> str:
    """`tensor`, `channel` or `g32`."""
    rank = len(site.shape)
    axis, blocks = cfg.get("axis"), cfg.get("block_sizes")
    if blocks is not None:
        if axis is not None:
            raise InputError(f"{place}: gives both axis and block_sizes; ModelOpt takes one of them.")
        size = _block(a_dict(blocks, f"{place}: block_sizes"), rank, f"{place}: block_sizes")
        if size is None and site.kind in CONVOLUTIONS:
            raise InputError(f"{place}: block_sizes: cuts a kernel in rows, which evoquant does not; give axis 0.")
        return "channel" if size is None else f"g{size}"
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    if axis is None:
        return "tensor"
    if integer(axis, f"{place}: axis", -rank, rank - 1) % rank != site.channel_axis:
        raise InputError(f"{place}: axis {axis}; the output channels of its weights are axis {site.channel_axis}.")
    return "channel"


def _block(blocks: Mapping[str, Any], rank: int, place: str) -> int | None:
    """The size of blocks along the last axis; None for one block as long as it."""
    axes = {key: value for key, value in blocks.items() if key != "type"}
    if set(axes) not in ({"-1"}, {str(rank - 1)}):
        raise InputError(f"{place}: {', '.join(axes)[:60] or 'no axis'}; evoquant cuts blocks along the last axis, -1.")
    size = next(iter(axes.values()))
    return None if size is None else integer(size, place, 1, LARGEST_GROUP)


def _inputs(cfg: Mapping[str, Any], place: str) -> bool:
    """Whether inputs get a scale a token, as they come, which is what evoquant does.

    Raises:
        InputError: they are not INT8 with a scale that is at least of a token.
    """
    _attributes(cfg, place)
    if cfg.get("num_bits", 8) != 8:
        raise InputError(
            f"{place}: inputs of num_bits {str(cfg['num_bits'])[:40]}; evoquant quantizes them to INT8 alone."
        )
    blocks = cfg.get("block_sizes")
    if blocks is None and cfg.get("axis") is None:
        return False
    blocks = a_dict(blocks, f"{place}: block_sizes") if blocks is not None else {}
    if cfg.get("axis") is not None or blocks.get("-1", 0) is not None or not blocks.keys() <= {"-1", "type"}:
        raise InputError(f"{place}: evoquant quantizes inputs with one scale a token, not by axis or block.")
    return blocks.get("type") == "dynamic" or cfg.get("type") == "dynamic"


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
            place = f"{source}: quantized_layers: {layer[:200]}"
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
            f"{place}: quant_algo {str(name)[:60]!r}, which evoquant has nothing like; it has {', '.join(_KNOWN)}."
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
