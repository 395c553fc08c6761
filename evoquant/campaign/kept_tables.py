"""Copies of the cost tables that a campaign reads, in its run directory: so it goes on wherever either lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.campaign.config_cost import TableCostConfig
from evoquant.files import read_bytes
from evoquant.scoring.cost_file import LARGEST_TABLE

if TYPE_CHECKING:
    from evoquant.campaign.config import CampaignConfig
    from evoquant.campaign.config_cost import AnyCostConfig
    from evoquant.campaign.storage import RunDir


def keep_tables(directory: RunDir, config: CampaignConfig) -> list[str]:
    """Copy the tables that a config names into its run directory; the names of the copies.

    Raises:
        InputError: one cannot be read, or the disk refuses.
    """
    found = []
    for cost in (config.cost, *config.costs.values()):
        if isinstance(cost, TableCostConfig):
            directory.put(_copy_of(cost), read_bytes(cost.place, limit=LARGEST_TABLE))
            found.append(_copy_of(cost))
    return found


def with_kept_tables(config: CampaignConfig, directory: RunDir) -> CampaignConfig:
    """The config of a run directory, reading the copies that are there."""

    def kept(cost: AnyCostConfig | None) -> AnyCostConfig | None:
        if isinstance(cost, TableCostConfig) and directory.has(_copy_of(cost)):
            return cost.kept_at(directory.path / _copy_of(cost))
        return cost

    costs = {name: kept(cost) for name, cost in config.costs.items()}
    return config.model_copy(update={"cost": kept(config.cost), "costs": costs})


def _copy_of(cost: TableCostConfig) -> str:
    """Its name: the ending says how it is read."""
    return f"table-{(cost.sha256 or '')[:16]}{'.csv' if cost.file.lower().endswith('.csv') else '.json'}"
