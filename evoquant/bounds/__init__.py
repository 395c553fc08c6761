"""Certified bounds of the separable problem: the optimum with its gap, the Pareto front, the greedy baseline.

optimum.certify(problem, objective) → Bound
front.pareto_front(problem) → Front
greedy.greedy(problem, objective) → allocation

All sums are int64 and exact. Floats only decide what to leave out, with a margin for their rounding.
"""
