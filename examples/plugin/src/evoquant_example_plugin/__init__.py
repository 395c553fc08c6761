"""A search, a cost and an exporter from outside of evoquant."""

from evoquant_example_plugin.annealing import Annealing
from evoquant_example_plugin.latency import Latency
from evoquant_example_plugin.markdown import Markdown

__all__ = ["Annealing", "Latency", "Markdown"]
