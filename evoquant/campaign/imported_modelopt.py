"""NVIDIA ModelOpt's recipes for quantizers, its `quant_cfg`, read as allocations.

A `quant_cfg` is a list of entries for quantizers, of which later ones win, as `mtq.quantize` of 0.47.0 takes it; the
older dict, name → attributes, is the same in the order of its keys. Each Linear, convolution and Embedding has a
`weight_quantizer`; it and the `input_quantizer` are on, at 8 bits, until an entry says otherwise.
"""

from __future__ import annotations

import re
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
    named,
    own_numbers,
    shown,
    unknown,
)
from evoquant.campaign.imported_patterns import MOST, WILDCARDS, wildcard
from evoquant.errors import InputError, quoted, suggestion

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
_WEIGHTLESS = re.compile(
    r"nn\.((Batch|Instance)Norm|(Avg|Max|AdaptiveAvg)Pool)[123]d|nn\.(LayerNorm|LeakyReLU|GRU|LSTM|RNN)"
)
"""Classes that ModelOpt has quantizers for, none of them of weights that take a width here."""
_ATTENTION = "_bmm_quantizer"


@dataclass(frozen=True)
class Entry:
    """One entry of a `quant_cfg`.

    Attributes:
        name: a shell pattern for names of quantizers.
        cfg: attributes that replace all of a quantizer's; None where it is only switched.
        enable: whether it is on.
        scope: name of a class, whose modules alone are meant; None for all.
        number: of the entry in the file, from 1.
    """

    name: str
    cfg: Mapping[str, Any] | None
    enable: bool
    scope: str | None
    number: int


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
        warnings = [own_numbers(KIND), *self.warnings]
        for entry in self.entries:
            meant = self._meant(entry, names, sites, warnings)
            if entry.scope is not None:
                inside = [name for name in meant if entry.scope in owners[name.rpartition(".")[0]].classes]
                if meant and not inside and entry.enable:
                    place = f"quant_cfg entry {entry.number}: {quoted(entry.name)}"
                    warnings.append(f"{place}: no nn.{entry.scope} of this network")
                meant = inside
            for name in meant:
                owner = owners[name.rpartition(".")[0]]
                if name.endswith(INPUT) and owner.kind == "Embedding":
                    continue  # of tokens: it stays off whatever is said
                one = quantizers[name]
                one.on = entry.enable
                if entry.cfg is not None:
                    one.cfg, one.place = entry.cfg, f"quant_cfg entry {entry.number}"
        widths = {}
        for site in sites:
            if site.kind is None:
                widths[site.name] = self.rest
            else:
                weight, inputs, outputs = (quantizers[f"{site.name}.{name}"] for name in (WEIGHT, INPUT, OUTPUT))
                widths[site.name] = self._width(site, weight, inputs, outputs, warnings)
        return Imported(widths, tuple(dict.fromkeys(warnings)))

    def _meant(self, entry: Entry, names: Sequence[str], sites: Sequence[Site], notes: list[str]) -> list[str]:
        """The quantizers that an entry names; those of attention's products, which are not here, are noted.

        Raises:
            InputError: it switches one on that is not there.
        """
        found = wildcard(entry.name, names, self.source)
        if found or not entry.enable:
            return found
        place = f"{self.source}: quant_cfg entry {entry.number}"
        if entry.name.endswith(_ATTENTION):
            notes.append(f"{quoted(entry.name)}: attention's own products, or their cache, are not quantized here")
            return found
        if any(mark in entry.name for mark in WILDCARDS):
            raise InputError(
                f"{place}: {quoted(entry.name)} switches on, but matches no quantizer of the network; quantizers are "
                f"named LAYER.{WEIGHT} and LAYER.{INPUT}. Leave out what is not meant for this network."
            )
        layer = entry.name.rpartition(".")[0] or entry.name
        if layer in [site.name for site in sites]:
            raise InputError(f"{place}: ModelOpt has no quantizer {quoted(entry.name)}.")
        raise unknown(f"{place}: {quoted(entry.name)}", layer, sites)

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
    warnings: list[str] = []
    for number, raw in enumerate(given, 1):
        entries += _entries(raw, number, source, warnings)
    if sum(any(mark in entry.name for mark in WILDCARDS) for entry in entries) > MOST:
        raise InputError(f"{source}: has more than {MOST} patterns; name layers exactly.")
    algorithm = data.get("algorithm")
    method = algorithm.get("method") if isinstance(algorithm, dict) else algorithm
    if method not in (None, "max"):
        warnings.append(f"algorithm {quoted(method, 60)}: changes weights or scales first; measured without it")
    if rest is None:
        rest = "FP32"
        warnings.append("what it does not quantize is measured at FP32")
    return QuantCfg(source, tuple(entries), rest, tuple(warnings))


def _entries(raw: Any, number: int, source: str, notes: list[str]) -> list[Entry]:
    """One entry in the list's form, or those of a name or class → attributes, the older form."""
    place = f"{source}: quant_cfg entry {number}"
    entry = a_dict(raw, place)
    given: list[tuple[Any, Any, Any, Any]] = []
    if "quantizer_name" in entry:
        given.append((entry["quantizer_name"], entry.get("cfg"), entry.get("enable"), entry.get("parent_class")))
    else:
        for name, value in entry.items():
            where = f"{place}: {named(name, 60)}"
            if name.startswith("nn."):
                inner = a_dict(value, where)
                given += [_older(key, attributes, name, where) for key, attributes in inner.items()]
            else:
                given.append(_older("*" if name == "default" else name, value, None, place))
        if not entry:
            raise InputError(f"{place}: is empty; it gives a quantizer_name, and cfg or enable.")
    found = []
    for name, cfg, enable, scope in given:
        on = _checked(name, cfg, enable, place)
        known = scope is None or (isinstance(scope, str) and scope in _SCOPES)
        if known:
            attributes = None if cfg is None else a_dict(cfg, f"{place}: cfg")
            found.append(Entry(name, attributes, on, None if scope is None else _SCOPES[scope], number))
        elif on or not isinstance(scope, str):
            close = suggestion(str(scope)[:60], _SCOPES)
            raise InputError(f"{place}: parent_class {quoted(scope, 60)} is not known.{close}")
        elif not _WEIGHTLESS.fullmatch(scope):
            notes.append(f"quant_cfg entry {number}: parent_class {quoted(scope, 60)}: not known, left out")
    return found


def _older(name: str, value: Any, scope: str | None, place: str) -> tuple[str, Any, Any, str | None]:
    """Name, cfg, enable and class of an entry in the older form."""
    if isinstance(value, list):
        return name, value, None, scope
    attributes = a_dict(value, f"{place}: {named(name, 60)}")
    return name, {k: v for k, v in attributes.items() if k != "enable"} or None, attributes.get("enable"), scope


def _checked(name: Any, cfg: Any, enable: Any, place: str) -> bool:
    """Whether an entry switches on.

    Raises:
        InputError: it is none.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"{place}: quantizer_name: should be a name or a shell pattern.")
    if cfg is None and enable is None:
        raise InputError(f"{place}: gives neither cfg nor enable.")
    on = True if enable is None else flag(enable, f"{place}: enable")
    if isinstance(cfg, list):
        raise InputError(f"{place}: quantizes twice, one after the other; evoquant quantizes once.")
    return on


def _attributes(cfg: Mapping[str, Any], place: str) -> None:
    """Refuse what changes the meaning of a quantizer."""
    for key, value in cfg.items():
        if key in _REFUSED and value and not (isinstance(value, dict) and value.get("enable") is False):
            raise InputError(f"{place}: {key}: evoquant has no such quantizer; leave it out.")
        if key not in (*_REFUSED, *_NO_MATTER, *_READ):
            raise InputError(f"{place}: unknown key {quoted(key, 60)}.{suggestion(key[:60], _READ)}")


def _weights(cfg: Mapping[str, Any], site: Site, place: str) -> str:
    _attributes(cfg, place)
    bits = cfg.get("num_bits", 8)
    if isinstance(bits, list) and bits != _E4M3:
        raise InputError(f"{place}: num_bits {str(bits)[:40]}: of floats evoquant has E4M3, [4, 3], alone.")
    slices = _slices(cfg, site, place)
    if bits == _E4M3:
        return f"FP8-{slices}"
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
    if "scale_bits" in axes:
        raise InputError(f"{place}: scale_bits: evoquant has no blocks whose scales are quantized themselves.")
    if set(axes) not in ({"-1"}, {str(rank - 1)}):
        raise InputError(f"{place}: {shown(list(axes)) or 'no axis'}; evoquant cuts blocks along the last axis, -1.")
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
            f"{place}: inputs of num_bits {repr(cfg['num_bits'])[:40]}; evoquant quantizes them to INT8 alone."
        )
    blocks = cfg.get("block_sizes")
    if blocks is None and cfg.get("axis") is None:
        return False
    blocks = a_dict(blocks, f"{place}: block_sizes") if blocks is not None else {}
    if cfg.get("axis") is not None or blocks.get("-1", 0) is not None or not blocks.keys() <= {"-1", "type"}:
        raise InputError(f"{place}: evoquant quantizes inputs with one scale a token, not by axis or block.")
    return blocks.get("type") == "dynamic" or cfg.get("type") == "dynamic"
