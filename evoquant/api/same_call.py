"""Whether a call of `optimize` or `run` is the one that a run directory was started with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.config import NOT_HASHED, NOT_HASHED_OF_TASK, CampaignConfig
from evoquant.campaign.config_files import without_places
from evoquant.campaign.config_measured import MemoryTaskConfig
from evoquant.campaign.finished import resolved_config
from evoquant.campaign.storage import RunDir
from evoquant.errors import InputError, shown_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_ARGUMENTS = {  # key of the config → the argument that it comes from
    "task.model": "the model (weights or architecture)",
    "task.data": "the data",
    "task.metric": "metric",
    "task.code": "the metric's code",
    "task.rounding": "rounding",
    "task.rounding_code": "rounding (its code, or what it holds)",
    "task.block": "block",
    "task.batch": "batch",
    "stop.passes": "budget",
    "objective.floor": "floor",
    "objective.retention": "floor",
    "objective.minimise": "minimise",
    "genome.kind": "genome",
    "search.start": "start_from",
    **{f"{key}.code": f"{key} (its code, or what it holds)" for key in ("search", "objective", "cost", "estimator")},
    "genome.code": "space (its code, or what it holds)",
}


def require_same_call(place: Path, config: CampaignConfig, argument: str = "run_dir") -> None:
    """Whether a run directory is of the same model, data and arguments.

    Args:
        place: the run directory.
        config: of the call.
        argument: that named it.

    Raises:
        InputError: it is not; the message names what differs.
    """
    then = resolved_config(RunDir.open(place, hold=False))
    if then.hash() == config.hash():
        return
    if isinstance(then.task, MemoryTaskConfig) != isinstance(config.task, MemoryTaskConfig):
        raise InputError(f"{place}: holds a run of another kind; choose another {argument}=.")
    before, after = (
        {key: value for key, value in _flat(without_places(one.to_dict())) if key.partition(".")[0] not in NOT_HASHED}
        for one in (then, config)
    )
    faults = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if old == new or key in [f"task.{name}" for name in NOT_HASHED_OF_TASK]:
            continue
        what = _ARGUMENTS.get(key, key)
        if key == "search.start":
            faults.append(f"{what}: it began with {len(old or ())} genomes, now with {len(new or ())}, or others")
        elif key in ("task.model", "task.data") or key.endswith(".code"):
            faults.append(f"{what}: sha256 {str(old)[:12]}… then, {str(new)[:12]}… now")
        else:
            faults.append(f"{what}: {shown_value(old)} then, {shown_value(new)} now")
    raise InputError(
        f"{place}: was started with something else than is given now: {'; '.join(faults)}. Give what it was started "
        f"with, or choose another {argument}="
        f"{' (start_from= begins with its allocations)' if any(f.startswith('the model') for f in faults) else ''}."
    )


def _flat(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
