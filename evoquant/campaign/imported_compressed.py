"""compressed-tensors' `quantization_config`, as Hugging Face checkpoints hold it, read as an allocation.

Which target counts for a layer is compressed-tensors' own rule (`apply_quantization_config` of 0.20.0): its exact name,
then of regular expressions (`re:…`, anchored at the start) the first in alphabetical order, then the name of a class;
what `ignore` matches stays as it is. Only Linear and Embedding are ever quantized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    strings,
    unknown,
)
from evoquant.campaign.imported_patterns import Patterns
from evoquant.errors import InputError, quoted

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence

KIND = "compressed-tensors"
REGEX = "re:"
_ARGUMENTS = {"num_bits", "type", "symmetric", "strategy", "group_size", "block_structure", "dynamic"}
_NO_MATTER = {"observer", "observer_kwargs", "scale_dtype", "zp_dtype", "actorder"}  # how numbers are found and kept
_SCHEME = {"targets", "weights", "input_activations", "output_activations", "format"}


@dataclass(frozen=True)
class CompressedTensors:
    """A checked `quantization_config`.

    Attributes:
        source: for messages.
        widths: target → precision; None for one whose weights stay as they are.
        ignore: names, regular expressions and classes that stay as they are.
        rest: precision of what no group names.
        warnings: what the file says beyond that.
    """

    source: str
    widths: Mapping[str, str | None]
    ignore: tuple[str, ...]
    rest: str
    warnings: tuple[str, ...]

    def resolve(self, sites: Sequence[Site]) -> Imported:
        """Widths of all layers; see `Foreign`."""
        compiled = Patterns(self.source, [site.name for site in sites])
        patterns = {
            target: compiled.add(target.removeprefix(REGEX))
            for target in dict.fromkeys((*self.widths, *self.ignore))
            if target.startswith(REGEX)
        }
        targets = _Targets(self.widths, patterns)
        ignored = _Targets(self.ignore, patterns)
        widths, alone, doubtful = {}, [], []
        for site in sites:
            found, left = targets.of(site), ignored.of(site)
            if not found or left:
                widths[site.name] = self.rest
                continue
            width = self.widths[found[0]]
            rivals = [name for name in found if name.startswith(REGEX) and found[0].startswith(REGEX)]
            if len({self.widths[name] for name in rivals}) > 1:
                doubtful.append(site.name)
            if site.kind is None or width is None:
                widths[site.name] = self.rest
                if site.name in self.widths and width is not None:
                    alone.append(site.name)
            else:
                widths[site.name] = fitting(site, width, self.source)
        self._require_matched(targets, sites)
        convolutions = [s.name for s in sites if s.kind in CONVOLUTIONS and widths[s.name] != self.rest]
        warnings = [own_numbers(KIND), *self.warnings]
        if alone:
            warnings.append(f"{shown(alone)}: no Linear or Embedding, which {KIND} leaves at {self.rest}")
        if convolutions:
            warnings.append(
                f"{shown(convolutions)}: measured as the file says; {KIND} itself leaves convolutions alone"
            )
        if doubtful:
            warnings.append(f"{shown(doubtful)}: several groups match and differ; the first target by name counts")
        lost = [name for name in self.ignore if name not in ignored.matched and name not in WEIGHTED]
        if lost:
            warnings.append(f"ignore: {shown(lost)}: no layer of this network")
        return Imported(widths, tuple(warnings))

    def _require_matched(self, targets: _Targets, sites: Sequence[Site]) -> None:
        for target in self.widths:
            if target in targets.matched or target in WEIGHTED:
                continue
            if target.startswith(REGEX):
                raise InputError(f"{self.source}: the target {quoted(target)} matches no layer of the network.")
            raise unknown(self.source, target, sites)


class _Targets:
    """Names, classes and patterns; which of them ever matched is noted."""

    def __init__(self, targets: Mapping[str, Any] | Sequence[str], patterns: Mapping[str, re.Pattern[str]]) -> None:
        self._plain = {target for target in targets if not target.startswith(REGEX)}
        self._patterns = [(target, patterns[target]) for target in sorted(set(targets)) if target.startswith(REGEX)]
        self.matched: set[str] = set()

    def of(self, site: Site) -> list[str]:
        """The targets that match, the one that counts first; none where the layer is not a module's weight."""
        if not site.classes:
            return []
        named = sorted({site.name} & self._plain)
        found = named + [target for target, pattern in self._patterns if pattern.match(site.name)]
        found += sorted((set(site.classes) & self._plain) - set(found))
        self.matched.update(found)
        return found


def compressed_tensors(config: Any, rest: str | None, source: str) -> CompressedTensors:
    """The recipe in a `quantization_config`.

    Args:
        config: the value of that key.
        rest: precision of what no group names; None where the file does not say.
        source: for messages.

    Raises:
        InputError: it is damaged, or asks for what evoquant cannot measure; the message names the key.
    """
    groups = a_dict(a_dict(config, source).get("config_groups"), f"{source}: config_groups")
    if config.get("transform_config"):
        raise InputError(f"{source}: transform_config: the network's weights are transformed, which is not measured.")
    for key in ("sparsity_config", "moe_sparsity_config"):
        if _pruned(config.get(key)):
            raise InputError(f"{source}: {key}: the network is pruned, which is not measured.")
    warnings, widths = [], dict[str, str | None]()
    for name, group in groups.items():
        place = f"{source}: config_groups.{named(name, 60)}"
        if isinstance(group, list):
            raise InputError(f"{place}: is the name of a preset; write the group out: targets, weights.")
        width, notes = _scheme(a_dict(group, place), place)
        warnings += notes
        for target in strings(group.get("targets"), f"{place}.targets"):
            if widths.setdefault(target, width) != width:
                raise InputError(
                    f"{place}: the target {quoted(target)} stands in another group, too, at another width."
                )
    if config.get("kv_cache_scheme"):
        warnings.append("kv_cache_scheme: the cache of keys and values is not quantized here")
    if rest is None:
        rest = "FP32"
        warnings.append("no dtype in the file: what no group names is measured at FP32")
    return CompressedTensors(
        source, widths, strings(config.get("ignore"), f"{source}: ignore"), rest, tuple(dict.fromkeys(warnings))
    )


def _pruned(config: Any) -> bool:
    """Whether a `sparsity_config` says that weights were pruned; `dense` stores all of them, in whatever structure."""
    if not isinstance(config, dict) or config.get("format") != "dense":
        return bool(config)
    return config.get("sparsity_structure") not in (None, "unstructured", "0:0")


def _scheme(group: Mapping[str, Any], place: str) -> tuple[str | None, list[str]]:
    """The precision of a group, and what to say of it."""
    for key in group.keys() - _SCHEME:
        raise InputError(f"{place}: unknown key {quoted(key, 60)}; a group has {', '.join(sorted(_SCHEME))}.")
    if group.get("output_activations") is not None:
        raise InputError(f"{place}.output_activations: evoquant quantizes weights and inputs, not outputs.")
    inputs = group.get("input_activations")
    if group.get("weights") is None:
        if inputs is not None:
            raise InputError(f"{place}: quantizes inputs alone; evoquant quantizes them beside integer weights.")
        return None, []
    width, notes = _weights(a_dict(group["weights"], f"{place}.weights"), f"{place}.weights")
    if inputs is None:
        return width, notes
    where = f"{place}.input_activations"
    near = _inputs(a_dict(inputs, where), where)
    if not width.startswith("INT"):
        raise InputError(f"{where}: evoquant quantizes inputs beside integer weights, not beside {width}.")
    return f"{width}-a8", notes + near


def _arguments(args: Mapping[str, Any], place: str) -> list[str]:
    """What to say of keys that are not read."""
    other = sorted(args.keys() - _ARGUMENTS - _NO_MATTER)
    return [f"{place}: {shown(other)}: not read"] if other else []


def _weights(args: Mapping[str, Any], place: str) -> tuple[str, list[str]]:
    notes = _arguments(args, place)
    bits = integer(args.get("num_bits", 8), f"{place}.num_bits", 1, 32)
    symmetric = flag(args.get("symmetric", True), f"{place}.symmetric")
    slices = _slices(args, place)
    kind = str(args.get("type", "int")).lower()
    if kind == "float":
        if bits != 8 or not symmetric:
            raise InputError(f"{place}: floats of {bits} bits: evoquant has FP8 (E4M3, symmetric) and no other.")
        return f"FP8-{slices}", notes
    if kind != "int" or not 2 <= bits <= 8:
        raise InputError(
            f"{place}: {named(kind, 20)} of {bits} bits: evoquant has integers of 2 to 8 bits, and floats of 8."
        )
    return f"INT{bits}-{slices}{'' if symmetric else '-asym'}", notes


def _slices(args: Mapping[str, Any], place: str) -> str:
    """`tensor`, `channel` or `g32`; without a strategy the size of the groups decides, as in compressed-tensors."""
    size = args.get("group_size")
    if size is not None:
        size = integer(size, f"{place}.group_size", -1, LARGEST_GROUP)
    strategy = args.get("strategy")
    if strategy is None:
        strategy = "tensor" if size is None else "channel" if size == -1 else "group"
    strategy = str(strategy).lower()
    if strategy == "group":
        if size is None or size < 1:
            raise InputError(f"{place}.group_size: the strategy group needs a size of at least 1.")
        return f"g{size}"
    if strategy not in ("tensor", "channel"):
        raise InputError(f"{place}.strategy: {quoted(strategy, 40)}; evoquant has tensor, channel and group.")
    return strategy


def _inputs(args: Mapping[str, Any], place: str) -> list[str]:
    """What to say of inputs that evoquant quantizes: dynamic INT8."""
    notes = _arguments(args, place)
    bits = integer(args.get("num_bits", 8), f"{place}.num_bits", 1, 32)
    kind = str(args.get("type", "int")).lower()
    if bits != 8 or kind != "int":
        raise InputError(f"{place}: {named(kind, 20)} of {bits} bits; evoquant quantizes inputs to INT8 alone.")
    if args.get("dynamic") is not True:
        raise InputError(f"{place}: static; evoquant quantizes inputs dynamically (`dynamic: true`).")
    if args.get("symmetric", True) is not True:
        raise InputError(f"{place}: asymmetric; evoquant quantizes inputs symmetrically.")
    if args.get("strategy") != "token":
        notes.append(f"{place}: one scale a {named(args.get('strategy'), 20)}; measured with one a token")
    return notes
