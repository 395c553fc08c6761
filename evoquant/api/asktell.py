"""A search for somebody's own loop: by the same tables, names and defaults as a campaign's config.

ask_tell("genetic", space, seed=0, population=20) → AskTell
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from evoquant.api.ask_loop import AskTell
from evoquant.api.ask_space import SearchSpace, plain_options, search_space
from evoquant.campaign.build import make_objective
from evoquant.campaign.build_search import built_in_search
from evoquant.campaign.config import config_from_dict
from evoquant.campaign.config_base import Closed, tag
from evoquant.campaign.config_objective import LimitsConfig
from evoquant.campaign.config_outside import SEARCH_KINDS, AnySearch
from evoquant.campaign.config_search import GeneticConfig
from evoquant.campaign.own import given_part, load_code
from evoquant.errors import InputError, describe_validation, named_in, quoted, shown_value
from evoquant.search.told import NEEDS, Judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from evoquant.genomes.base import Space
    from evoquant.scoring.objective import Objective
    from evoquant.search.base import Search


class _Given(Closed):
    """What `ask_tell` is given, checked as a config is."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    search: Annotated[AnySearch, tag("genetic", SEARCH_KINDS)] = GeneticConfig()


def ask_tell(
    kind: str | Search | Callable[..., Search],
    space: SearchSpace | Space,
    *,
    seed: int | None = None,
    objective: str | Mapping[str, Any] | Objective = "cliff",
    **options: Any,
) -> AskTell:
    """A search that you drive: ask it for candidates, tell it what came out.

    Args:
        kind: `genetic`, `nsga2`, …, as in a config; or a class of one's own, by its name `module:Class` or as it is,
            which is called with space, seed and options; or a search of one's own as it is.
        space: of `search_space`, or one of one's own.
        seed: of everything random; 0 by default.
        objective: what makes a fitness of a told retention, and what `surrogate` maximises: a kind, a kind with its
            options as in a config, or one of one's own.
        options: the search's, as in a config: `population`, `start`, `in_flight`, ….

    Raises:
        InputError: an option is wrong, or the search cannot search this space.
    """
    named = kind if isinstance(kind, str) else getattr(kind, "__qualname__", type(kind).__qualname__)
    source = f"ask_tell({quoted(named)})"
    over = space if isinstance(space, SearchSpace) else search_space(space)
    checked = _checked(source, seed, kind, options)
    judged_by = _objective(objective, over, source)
    made_of: dict[str, Any] = {"space": over.made_of, "seed": checked.seed, "objective": _described(judged_by)}
    if isinstance(kind, str) and ":" in kind:
        kind = _loaded(kind, source)
    if isinstance(kind, str):
        config = checked.search

        def make() -> Search:
            return built_in_search(config, over.space, checked.seed, over.problems, judged_by)

        made_of["search"] = config.model_dump(mode="json")
    elif not callable(kind):
        if options or seed is not None:
            given = ", ".join([*options, *(["seed"] if seed is not None else [])])
            raise InputError(f"{source}: {given}: a search of your own has its options already; leave them out.")
        own = kind

        def make() -> Search:
            return own

        made_of["search"] = _described(kind)
    else:
        factory = kind

        def make() -> Search:
            made: Search = given_part(factory, "search", named, over.space, seed=checked.seed, **options)
            return made

        made_of["search"] = {"class": named, "options": plain_options(options, source)}
    asked = checked.search if isinstance(kind, str) else kind
    needs = NEEDS.get(str(kind), ()) or tuple(getattr(asked, "needs", ()))
    judge = Judge(named, needs, over.space, over.problems, judged_by)
    try:
        return AskTell(make, judge, made_of)
    except InputError as error:  # speaks of a config's keys
        raise named_in(error, source) from None


def _checked(source: str, seed: Any, kind: Any, options: Mapping[str, Any]) -> _Given:
    """Seed and options, with every default; the options only of a search of evoquant's own."""
    given: dict[str, Any] = {} if seed is None else {"seed": seed}
    keys: list[str] = []
    if isinstance(kind, str) and ":" not in kind:
        start = options.get("start")
        listed = list(start) if isinstance(start, (list, tuple)) else start
        if isinstance(listed, list):  # genomes beside names and plain data
            listed = [one.to_dict() if hasattr(one, "to_dict") else one for one in listed]
        given["search"] = {**options, **({} if start is None else {"start": listed}), "kind": kind}
        keys = _keys(kind)
    elif not isinstance(kind, str) and not callable(kind) and not hasattr(kind, "ask"):
        raise InputError(
            f"{source}: {shown_value(kind)} is no search; give a kind ({', '.join(SEARCH_KINDS)}) or your own."
        )
    try:
        return _Given.model_validate(given)
    except ValidationError as error:
        raise InputError(describe_validation(error, source, keys)) from None


def _keys(kind: str) -> list[str]:
    """The options of a kind, to find the one that was meant."""
    try:
        made = _Given.model_validate({"search": {"kind": kind}})
    except ValidationError:
        return []
    return [name for name in type(made.search).model_fields if name != "kind"]


def _objective(given: Any, space: SearchSpace, source: str) -> Objective:
    if not isinstance(given, (str, Mapping)):
        if not hasattr(given, "score"):
            raise InputError(f"{source}: objective: {shown_value(given)} has no `score`; give a kind or your own.")
        own: Objective = given
        return own
    part = {"kind": given} if isinstance(given, str) else dict(given)
    costs = {key: space.made_of[key] for key in ("cost", "costs") if key in space.made_of}
    config = config_from_dict({"name": "own-loop", "objective": part, **costs}, source)
    if isinstance(config.objective, LimitsConfig):
        _require_minimised(config.objective, space, source)
    return make_objective(config, space.problems)


def _require_minimised(objective: LimitsConfig, space: SearchSpace, source: str) -> None:
    """Whether limits are on models, and minimise what these are compressed in.

    Raises:
        InputError: they are not.
    """
    if not space.problems:
        raise InputError(f"{source}: objective: limits are on what models cost; make the space with one.")
    known = ("cost",) if space.problems[0].own_cost else ("bits", "bytes")
    if objective.minimise not in (None, *known):
        raise InputError(
            f"{source}: objective.minimise: {objective.minimise}: what is minimised is what the space counts; give it "
            f"there, as search_space(cost=...), and minimise cost."
        )


def _loaded(name: str, source: str) -> Callable[..., Search]:
    """A class of one's own by its name."""
    try:
        found: Any = load_code(name)
    except InputError as error:
        raise named_in(error, source) from None
    if not callable(found):
        raise InputError(f"{source}: {name} is no class, so nothing can be made of it; name a class.")
    made: Callable[..., Search] = found
    return made


def _described(given: Any) -> dict[str, Any]:
    """What tells an object of somebody's class from others, so far as it says."""
    settings: Any = None
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        settings = {one.name: repr(getattr(given, one.name)) for one in dataclasses.fields(given)}
    return {"class": type(given).__qualname__, "settings": settings}
