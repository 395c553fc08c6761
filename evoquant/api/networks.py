"""Models outside of a campaign: bounded, profiled, or an allocation from elsewhere measured and gated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.campaign.storage_url import place_of
from evoquant.errors import InputError, suggestion
from evoquant.files import is_file, is_folder, read_json
from evoquant.models.own_rounding import quantizer_of
from evoquant.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evoquant.campaign.additivity import Additivity
    from evoquant.campaign.config_measured import TaskConfig
    from evoquant.campaign.config_objective import LimitsConfig
    from evoquant.models.base import MeasuredTask
    from evoquant.profiles.model import ModelProfile
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.protocol import CostMaker


def bound(
    model: str | Path | ModelProfile,
    objective: Objective | Mapping[str, Any] | None = None,
    *,
    menu: Iterable[str] | None = None,
    pins: Mapping[str, str] | None = None,
    front: bool = False,
    at_least: float | None = None,
    cost: CostMaker | None = None,
    costs: Mapping[str, CostMaker] | None = None,
) -> dict[str, Any]:
    """The certified optimum of a model's separable estimate, and its Pareto front, as plain data.

    Args:
        model: a profile, its file, or a built-in name such as `seed/test`.
        objective: what the optimum is of; the published cliff by default. Limits as a config has them:
            `{"kind": "limits", "retention": 0.95, "minimise": "latency", "at_most": {"bytes": "20MB"}}`.
        menu, pins, front, at_least: see `evoquant.report.bound.bound_data`.
        cost: what is counted, made with its options; bits by default.
        costs: further ones by name, for limits.

    Raises:
        InputError: no such profile, it lacks losses, a pin cannot be kept, limits contradict, or nothing has that
            retention.
    """
    from evoquant.profiles.model import ModelProfile
    from evoquant.report.allocation import load_any_profile
    from evoquant.report.bound import bound_data
    from evoquant.scoring.objective import Cliff

    profile = model if isinstance(model, ModelProfile) else load_any_profile(str(model))
    goal = Cliff() if objective is None else _goal(objective)
    options: dict[str, Any] = {"menu": menu, "pins": pins, "front": front, "at_least": at_least}
    return bound_data(profile, goal, cost=cost, costs=costs, **options)


def _goal(objective: Objective | LimitsConfig | Mapping[str, Any]) -> Objective | LimitsConfig:
    """An objective, or limits as a config has them.

    Raises:
        InputError: a mapping that says no limits.
    """
    from evoquant.report.bound import limits_of

    if not isinstance(objective, Mapping):
        return objective
    if objective.get("kind") != "limits":
        raise InputError(f"objective: {objective.get('kind')!r}: give the objective itself; a mapping says limits.")
    extra = sorted(set(objective) - {"kind", "retention", "at_most", "minimise"})
    if extra:
        raise InputError(f"objective.{extra[0]}: limits have retention, at_most and minimise.")
    return limits_of(objective.get("retention"), objective.get("at_most", {}), objective.get("minimise"))


def profile_network(
    source: TaskConfig,
    *,
    menu: Sequence[str] | None = None,
    signals: Sequence[str] | None = None,
    additivity: int = 0,
    cache: str | Path | None = None,
) -> tuple[ModelProfile, Additivity | None]:
    """Profile a real network; with `additivity`, also measure so many allocations and compare them with its tables.

    Args:
        source: the network, see `evoquant.campaign.config_measured`.
        menu: names of precisions; INT2, INT4 and INT8 per channel, FP16 and FP32 by default.
        signals: what to measure; by default all but Hessian traces.
        additivity: allocations, 0 for none, else at least 8.
        cache: folder for outcomes and trained networks.

    Raises:
        InputError: the network or an option cannot be used.
        CampaignError: the FP32 network cannot be measured.
    """
    from evoquant.campaign.additivity import FEWEST, measure_additivity
    from evoquant.campaign.build_measured import opened_network
    from evoquant.campaign.score import MEASURED_MENU
    from evoquant.models.base import SIGNALS
    from evoquant.quantization.precision import Menu

    wanted = tuple(name for name in SIGNALS if name != "hessian") if signals is None else tuple(signals)
    for name in wanted:
        if name not in SIGNALS:
            raise InputError(f"no signal is called {name!r}.{suggestion(name, SIGNALS)}")
    if 0 < additivity < FEWEST:
        raise InputError(f"additivity from {additivity} allocations says nothing; measure at least {FEWEST}.")
    place = cache_folder(None if cache is None else str(cache), Path())
    with opened_network(source, Menu.parse(menu or MEASURED_MENU), wanted, place) as opened:
        if not additivity:
            return opened.profile, None
        return opened.profile, measure_additivity(opened.measurer, opened.problem, additivity, source.seed)


def score(
    allocation: str | Path,
    source: TaskConfig,
    objective: Objective | LimitsConfig | Mapping[str, Any],
    *,
    menu: Sequence[str] | None = None,
    cost: CostMaker | str | None = None,
    costs: Mapping[str, CostMaker | str] | None = None,
    cache: str | Path | None = None,
) -> dict[str, Any]:
    """Measure and gate an allocation from elsewhere: figures by split, rivals, what is recommended, as plain data.

    Args:
        allocation: a CSV or JSON file of layer and width, a champion file, a run directory, or a recipe; or one of
            another tool, see `evoquant.campaign.imported`. Measured are its widths, not the codes in a file.
        source: the network, and with `rounding` how its codes are made.
        objective: by which it is compared; limits as `bound` takes them.
        menu: names of the precisions to compare on; by default the usual ones and those of the allocation.
        cost: what is counted: `bytes`, `bit_operations`, a table's file, or one's own; bits by default.
        costs: further ones by name, for limits.
        cache: folder for outcomes and trained networks.

    Raises:
        InputError: the file, the network, a layer or a cost cannot be used.
        CampaignError: a network cannot be measured.
    """
    from evoquant.campaign.build_measured import make_task, opened_network
    from evoquant.campaign.build_scoring import counting
    from evoquant.campaign.config_measured import OnnxTaskConfig
    from evoquant.campaign.finals_measured import Judge
    from evoquant.campaign.score import Unresolved, allocation_of, menu_for, resolved, score_allocation
    from evoquant.campaign.signals import signals_read

    given, made = _read(place_of(allocation))
    place = cache_folder(None if cache is None else str(cache), Path())
    task = make_task(source, place)
    warnings = _apart(made, task, source.rounding)
    if isinstance(given, Unresolved):
        given, warnings = resolved(given, task)
    read = () if isinstance(given, dict) else signals_read(given)
    signals = ("divergence" if isinstance(source, OnnxTaskConfig) else "fisher", *read)
    widths = menu_for(given, menu)
    compiling, goal = counting(widths, _goal(objective), cost, costs)
    with opened_network(source, widths, signals, place, task, compiling) as opened:
        judge = Judge(opened.measurer, opened.problem, goal(opened.problem), source.seed)
        scored = score_allocation(judge, allocation_of(given, opened.problem, str(allocation)))
        said = [*warnings, *scored["warnings"]]
        return {**scored, "warnings": said, "signals": dict(opened.profile.passes)}


@dataclass(frozen=True)
class _Made:
    """How an allocation was measured where it comes from; None is not known.

    Attributes:
        rounding: the name of somebody's own rounding, "" for evoquant's.
        quantizer: with the rounding's digest.
        model: digest of the network.
    """

    rounding: str | None = None
    quantizer: str | None = None
    model: str | None = None


def _read(path: Path) -> tuple[Any, _Made]:
    """What `campaign.score.read_allocation` gives, or the widths of a recipe of evoquant's; and how it was made."""
    from evoquant.campaign.finished import resolved_config
    from evoquant.campaign.score import MAX_BYTES, read_allocation
    from evoquant.campaign.storage import RESOLVED, RunDir
    from evoquant.export.recipe import SCHEMA, read_recipe

    if path.suffix == ".json" and is_file(path):
        data = read_json(path, limit=MAX_BYTES)
        if isinstance(data, dict) and data.get("schema") == SCHEMA:
            recipe = read_recipe(path, tensors=False)
            widths = {layer.name: layer.precision for layer in recipe.layers}
            return widths, _Made(recipe.rounding or "", recipe.quantizer, recipe.model_digest)
    given = read_allocation(path)
    if not is_folder(path) or not is_file(path / RESOLVED):
        return given, _Made()
    ran = resolved_config(RunDir.open(path, hold=False)).task
    return given, _Made(None if ran is None else ran.rounding or "")


def _apart(made: _Made, task: MeasuredTask, rounding: str | None) -> tuple[str, ...]:
    """In what this measurement is another than the one that an allocation comes from."""
    said = []
    if made.model is not None and made.model != task.model_digest:
        said.append(f"the recipe's codes are of another network than {task.name!r} is now: its widths are measured")
    if made.rounding is not None and made.rounding != (rounding or ""):
        theirs, ours = made.rounding or "evoquant's rounding", rounding or "evoquant's"
        remedy = f"; --rounding {made.rounding} measures it so" if ":" in made.rounding else ""
        said.append(f"it was measured with {theirs}, here with {ours}{remedy}")
    elif made.quantizer is not None and made.quantizer != quantizer_of(task):
        said.append(f"the code of {rounding} was edited since: the recipe's codes are by {made.quantizer}")
    return tuple(said)
