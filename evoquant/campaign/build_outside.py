"""From the `search` part of a config to another library's search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.config_base import CODE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evoquant.campaign.config_outside import OutsideConfig
    from evoquant.genomes.base import Genome, Space
    from evoquant.search.base import Search


def outside_search(config: OutsideConfig, space: Space, seed: int, start: Sequence[Genome]) -> Search:
    """A search of pymoo, Optuna or pyribs.

    Raises:
        InputError: it cannot search these genomes, the library has nothing of that name, or refuses its options.
        MissingExtraError: the library is not installed.
    """
    make, settings = _classes(config.kind)
    options = config.model_dump(exclude={"kind", "start"})
    key, name = config.chosen
    if CODE.fullmatch(name):
        from evoquant.campaign.build import load_code

        options[key] = load_code(name)
    return make(space, seed=seed, settings=settings(**options), start=start)


def _classes(kind: str) -> tuple[Callable[..., Search], Callable[..., Any]]:
    if kind == "pymoo":
        from evoquant.search.pymoo_search import PymooSearch, PymooSettings

        return PymooSearch, PymooSettings
    if kind == "optuna":
        from evoquant.search.optuna_search import OptunaSearch, OptunaSettings

        return OptunaSearch, OptunaSettings
    from evoquant.search.ribs_search import RibsSearch, RibsSettings

    return RibsSearch, RibsSettings
