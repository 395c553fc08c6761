"""From a config to how candidates are scored: objective, cost, estimator of retention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evoquant.campaign.config import BudgetConfig, CampaignConfig, CodeConfig, HeldConfig
from evoquant.campaign.config_base import CODE
from evoquant.campaign.config_cost import (
    AnyCostConfig,
    BitOperationsCostConfig,
    BitsCostConfig,
    BytesCostConfig,
    TableCostConfig,
    checked_names,
    table_digest,
)
from evoquant.campaign.config_objective import LimitsConfig
from evoquant.campaign.in_memory import borrowed_part
from evoquant.campaign.own import given_part, own_part
from evoquant.errors import ConfigError, InputError, raised_by, sentence
from evoquant.scoring.bit_operations import bit_operations
from evoquant.scoring.cost import BIT_UNITS, LARGEST_COST, bits_cost
from evoquant.scoring.cost_file import CostTable, TableCost, read_table
from evoquant.scoring.estimated import estimated_losses
from evoquant.scoring.limits import EFFECTIVE_BITS, Limit, WithinLimits
from evoquant.scoring.objective import OBJECTIVES, BitBudget, Objective
from evoquant.scoring.packed_bytes import PackedBytes
from evoquant.scoring.problem import Problem, compile_problem
from evoquant.scoring.quantity import Amount, parse_amount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.scoring.protocol import CostMaker, RetentionModel


def compiled(config: CampaignConfig, profiles: Iterable[ModelProfile]) -> tuple[Problem, ...]:
    """Profiles as a campaign scores them: with its menu, by its cost, which is made once.

    Raises:
        InputError: one cannot be compiled, or the config's own cost cannot be made.
    """
    compiling = compiler(config)
    return tuple(compiling(profile) for profile in profiles)


def compiler(config: CampaignConfig) -> Callable[[ModelProfile], Problem]:
    """A function from a profile to the problem that a campaign scores: its menu, and all its costs, made once.

    What an objective minimises is the campaign's main cost: compression is of that, and searches break ties by it.

    Raises:
        InputError: a cost cannot be made.
    """
    named = {name: maker_of(cost, f"costs.{name}") for name, cost in sorted(config.costs.items())}
    single = None if config.cost is None else maker_of(config.cost)
    apart = bool(getattr(config.search, "objectives", None))
    return costs_compiler(config.resolved_menu, config.objective, single, named, apart=apart)


def costs_compiler(
    menu: Menu, objective: object, single: CostMaker | None, named: Mapping[str, CostMaker], *, apart: bool = False
) -> Callable[[ModelProfile], Problem]:
    """A function from a profile to a problem with all costs.

    Args:
        menu: the precisions.
        objective: perhaps limits, which say what is minimised.
        single: the cost that goes by the name `cost`; None where that is bits.
        named: the others.
        apart: whether bits are looked at beside `single`, as limits do.
    """
    limited = isinstance(objective, LimitsConfig)
    makers: dict[str, CostMaker] = {"bits": bits_cost, **named, **({} if single is None else {"cost": single})}
    main = "bits" if single is None else "cost"
    if isinstance(objective, LimitsConfig):
        main = objective.minimise or main
    maker = makers.get(main, bits_cost)  # bytes are bits where nobody counts them otherwise
    several = bool(named) or ((limited or apart) and single is not None)
    return lambda profile: compile_problem(profile, menu, maker, makers if several else {})


def maker_of(cost: AnyCostConfig, key: str = "cost") -> CostMaker:
    """What makes the tables of one cost.

    Args:
        cost: built in, read from a file, or one's own.
        key: of the config, for messages.

    Raises:
        InputError: one's own cannot be made, or a file cannot be read, or is another than when it was named.
    """
    if isinstance(cost, BitsCostConfig):
        return bits_cost
    if isinstance(cost, BytesCostConfig):
        return PackedBytes(cost.target)
    if isinstance(cost, BitOperationsCostConfig):
        return bit_operations
    if isinstance(cost, TableCostConfig):
        return TableCost(_table(cost, key))
    if isinstance(cost, HeldConfig):
        lent: CostMaker = given_part(borrowed_part(cost, key), "cost", cost.what)
        return lent
    made: CostMaker = own_part(cost, "cost")
    return made


def _table(cost: TableCostConfig, key: str) -> CostTable:
    path = cost.place
    if cost.sha256 is not None and table_digest(path) != cost.sha256:
        raise ConfigError(
            f"{key}.file: {path} is another file than when the campaign was made (its sha256 differs); put the old one "
            f"back, or start a new run."
        )
    return read_table(path, cost.unit)


def named_cost(name: str | None) -> CostMaker:
    """The maker of a built-in cost, of a table's file, or that `module:Class` names; bits for None.

    Raises:
        ConfigError: there is none, or it cannot be made.
    """
    if name is None or name == "bits":
        return bits_cost
    if name == "bytes":
        return PackedBytes()
    if name == "bit_operations":
        return bit_operations
    if name.endswith((".csv", ".json")):
        return TableCost(read_table(Path(name)))
    if not CODE.fullmatch(name):
        raise ConfigError(
            f"cost {name}: name bits, bytes, bit_operations, the file of a table (.csv, .json), or your own as "
            f"module:Class."
        )
    made: CostMaker = own_part(CodeConfig(kind=name), "cost")
    return made


def counting(
    menu: Menu,
    objective: Objective | LimitsConfig,
    cost: CostMaker | str | None = None,
    costs: Mapping[str, CostMaker | str] | None = None,
) -> tuple[Callable[[ModelProfile], Problem], Callable[[Problem], Objective]]:
    """How commands without a config count: from a profile to its problem, and from that to the objective on it.

    Args:
        menu: the precisions.
        objective: perhaps limits.
        cost: what is counted, or its name, see `named_cost`; None for bits.
        costs: further ones by name.

    Raises:
        InputError: a cost cannot be made, or something is limited that nobody counts; called, as a campaign.
    """
    single = named_cost(cost) if isinstance(cost, str) else cost
    single = None if single is bits_cost else single
    named = {name: named_cost(one) if isinstance(one, str) else one for name, one in (costs or {}).items()}
    try:
        checked_names(dict(named))
        if isinstance(objective, LimitsConfig):
            objective.check_names(named, single=single is not None)
    except ValueError as error:
        raise InputError(sentence(error)) from None

    def goal(problem: Problem) -> Objective:
        return within_limits(objective, (problem,)) if isinstance(objective, LimitsConfig) else objective

    return costs_compiler(menu, objective, single, named), goal


def retention_model(config: CampaignConfig, problems: Iterable[Problem] = ()) -> RetentionModel | None:
    """The estimator of one's own that a config names; None for the separable one.

    Args:
        config: with it.
        problems: models to try it on, once, so that a fault is told before the search.

    Raises:
        InputError: it cannot be made, or cannot be asked about a model.
    """
    if config.estimator is None:
        return None
    made: RetentionModel = own_part(config.estimator, "estimator")
    for problem in problems:
        widest = np.full((1, len(problem.units)), len(problem.menu) - 1, dtype=np.int8)
        try:
            estimated_losses(made, problem, problem.repair(widest))
        except InputError as error:
            raise InputError(f"{problem.name}: {error}") from None
        except Exception as error:  # whatever it may raise
            raise ConfigError(
                f"estimator.kind: retention() of {type(made).__name__} raised {raised_by(error)} for {problem.name!r}."
            ) from error
    return made


def make_objective(config: CampaignConfig, problems: tuple[Problem, ...] = ()) -> Objective:
    """The objective of a config.

    Args:
        config: with it.
        problems: the models searched: megabytes are a size of one of them.

    Raises:
        ConfigError: megabytes of several models.
        InputError: an objective of one's own cannot be made.
    """
    objective = config.objective
    if isinstance(objective, (CodeConfig, HeldConfig)):
        made: Objective = own_part(objective, "objective")
        return made
    if isinstance(objective, LimitsConfig):
        return within_limits(objective, problems)
    if isinstance(objective, BudgetConfig):
        return BitBudget(objective.effective_bits or _bits_of(objective, problems))
    options = objective.model_dump()
    return OBJECTIVES[options.pop("kind")](**options)


def within_limits(objective: LimitsConfig, problems: tuple[Problem, ...]) -> WithinLimits:
    """The objective, its limits in the units of the models' tables; each model has to keep them.

    Raises:
        ConfigError: an amount is none of what a table counts.
    """
    limits = tuple(_limit(name, parse_amount(most), problems[0]) for name, most in objective.at_most.items())
    return WithinLimits(objective.retention, limits, objective.minimise or ("bits", "cost")[problems[0].own_cost])


def _limit(name: str, amount: Amount, problem: Problem) -> Limit:
    if name == EFFECTIVE_BITS:
        return Limit(name, EFFECTIVE_BITS, float(amount.value), "")
    counted = {"bits": problem.bits, "cost": problem.cost, **problem.costs}
    cost, unit, per_unit = name, counted[name].name if name in counted else "", 1
    if name == "bytes" and name not in problem.costs:
        cost, unit, per_unit = "bits", "bytes", 8 * BIT_UNITS
    try:
        most = int(amount.of(unit) * per_unit)
    except InputError as error:
        raise ConfigError(f"objective.at_most.{name}: {error}.") from None
    if most < 1:
        raise ConfigError(f"objective.at_most.{name}: {amount.text} is less than one of {unit}; raise it.")
    return Limit(name, cost, min(most, LARGEST_COST), unit, per_unit)


def _bits_of(objective: BudgetConfig, problems: tuple[Problem, ...]) -> float:
    """Effective bits per weight at which a model takes so many megabytes, or so much of its campaign's own cost.

    What no width applies to is included in both.
    """
    key = "megabytes" if objective.cost is None else "cost"
    limit = objective.megabytes or objective.cost
    if len(problems) != 1 or limit is None:
        instead = "give effective_bits" if objective.cost is None else "leave one of them"
        raise ConfigError(f"objective.{key}: is a size of one model, and there are {len(problems)}; {instead}.")
    (problem,) = problems
    unit = 8e6 * BIT_UNITS if objective.cost is None else 1.0
    left = limit * unit - problem.cost.constant
    if left <= 0:
        raise ConfigError(
            f"objective.{key}: {limit:g} is less than the {problem.cost.constant / unit:.4g} of {problem.name!r} that "
            f"no width applies to; raise it."
        )
    return left / problem.bit / problem.weights
