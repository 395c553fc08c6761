"""All suites in one place: what `evoquant.testing` offers."""

from evoquant.testing.clauses import ConformanceError
from evoquant.testing.costs import check_cost
from evoquant.testing.estimators import check_estimator
from evoquant.testing.executors import check_executor
from evoquant.testing.exporters import check_exporter
from evoquant.testing.objectives import check_objective
from evoquant.testing.roundings import check_rounding
from evoquant.testing.searches import check_search
from evoquant.testing.spaces import check_genome, check_space
from evoquant.testing.storages import check_storage

__all__ = [
    "ConformanceError",
    "check_cost",
    "check_estimator",
    "check_executor",
    "check_exporter",
    "check_genome",
    "check_objective",
    "check_rounding",
    "check_search",
    "check_space",
    "check_storage",
]
