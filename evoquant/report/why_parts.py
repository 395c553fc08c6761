"""Knock-outs: every part of a champion taken away alone, and what that changes.

Rules lose a protected type, their edges, a rung; trees a subtree, for which the constant that changes nothing in its
place stands in, or a signal, which is then at its mean; allocations have groups of layers put back to the
widest.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.genomes.expression import IS_TYPE, SIZE_SHARE, STATE, flat, nested, signals_of
from evoquant.genomes.rule import Rule
from evoquant.genomes.tree import Tree
from evoquant.genomes.tree_numpy import signal_values, state_of, widest
from evoquant.genomes.tree_simplify import simplify
from evoquant.genomes.tree_text import infix
from evoquant.report.why_subject import figures, layers_per_unit, measured_of, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome
    from evoquant.genomes.expression import Node
    from evoquant.report.why_subject import Model, Subject
    from evoquant.scoring.problem import Problem

SHOWN = 12
ALL_TYPES = "without the protected types"
MOST_SUBTREES = 64  # of a tree, those nearest to the root: each is applied to every model
_BLOCK = re.compile(r"^(?:[^.]*\.)*?[^.]*\d\.")  # up to the first part of a name that ends with a number


@dataclass(frozen=True)
class Knockout:
    """The champion without one part.

    Attributes:
        what: for people.
        genome: without it; None where only an allocation of the first model is known.
        allocation: of the first model, where there is no genome.
        removes: whether the part is gone, so that one without effect could go; not where it is only changed.
    """

    what: str
    genome: Genome | None = None
    allocation: NDArray[np.int8] | None = None
    removes: bool = True


def knockout_data(subject: Subject, others: Callable[[], Sequence[Problem]] = tuple) -> dict[str, Any]:
    """Plain data: `rows`, those that change most first, and `nothing`: what changes nothing on any model.

    `subtrees` says how many there are, and were tried, of a tree that has more than that.

    Args:
        subject: the champion on its models.
        others: the other train models, asked for only where something may go: it has to change nothing there, too.
    """
    knockouts = _distinct(_knockouts(subject))
    # Groups of layers are those of the first model alone.
    models = [model for i, model in enumerate(subject.models) if i == 0 or isinstance(subject.genome, (Rule, Tree))]
    own = [subject.allocation, *(subject.genome.allocate(model.problem) for model in models[1:])]
    columns = [[_allocated(knockout, model.problem) for knockout in knockouts] for model in models]
    changes = [_changes(model, mine, rows) for model, mine, rows in zip(models, own, columns, strict=True)]
    known = measured_of(subject, columns[0])
    labels = [model.label for model in models]
    rows = [_row(k, labels, [change[i] for change in changes], known[i]) for i, k in enumerate(knockouts)]
    data: dict[str, Any] = {"kind": {Rule: "rule", Tree: "tree"}.get(type(subject.genome), "groups")}
    if any(row["verdict"] == NOTHING for row in rows):
        places = [(model.problem, mine) for model, mine in zip(models, own, strict=True)]
        places += [(problem, subject.genome.allocate(problem)) for problem in others()]
        _check_idle(knockouts, rows, places[len(own) :])
        data |= _together(subject.genome, rows, places)
        data["checked"] = len(places)
    rows.sort(key=lambda row: (-math.inf if row["change"] is None else -abs(row["change"]), -row["layers"]))
    if isinstance(subject.genome, Tree):
        subtrees = sum(1 for _ in _subtrees(nested(simplify(subject.genome.expression))))
        if subtrees > MOST_SUBTREES:
            data["subtrees"] = {"of": subtrees, "tried": MOST_SUBTREES}
    return {
        **data,
        "rows": rows[:SHOWN],
        "of": len(rows),
        "nothing": [row["what"] for row in rows if row["verdict"] == NOTHING],
    }


def _check_idle(
    knockouts: Sequence[Knockout], rows: Sequence[dict[str, Any]], models: Sequence[tuple[Problem, NDArray[np.int8]]]
) -> None:
    """Mark what changes nothing on the subject's models, but does on others."""
    for knockout, row in zip(knockouts, rows, strict=True):
        if row["verdict"] != NOTHING or knockout.genome is None:
            continue
        moved = sum(not _same(knockout.genome, [pair]) for pair in models)
        if moved:
            row["verdict"] = f"nothing here, but on {moved} of {len(models)} other train models"


def _together(
    genome: Genome, rows: Sequence[dict[str, Any]], models: Sequence[tuple[Problem, NDArray[np.int8]]]
) -> dict[str, Any]:
    """What can all go at once, and the genome without it; parts are tried in a fixed order.

    Parts that change nothing alone may stand in for each other, so that one of them has to stay; the row of a rule's
    part that does is marked. Of a formula, which changes as a whole, only the shorter one is given.
    """
    if not isinstance(genome, (Rule, Tree)):
        return {}
    gone: list[str] = []
    less: Rule | Tree = Tree(simplify(genome.expression)) if isinstance(genome, Tree) else genome
    while (found := _shorter(less, models)) is not None:
        what, less = found
        gone.append(what)
    data = {"together": gone, "simplest": less.text}
    if isinstance(genome, Tree):
        return data
    went = {*gone, ALL_TYPES} if set(gone).issuperset(_type_texts(genome)) else set(gone)
    for row in rows:
        if row["verdict"] == NOTHING and row["what"] not in went:
            row["verdict"] = STANDS_IN
    return data


def _shorter(genome: Rule | Tree, models: Sequence[tuple[Problem, NDArray[np.int8]]]) -> tuple[str, Rule | Tree] | None:
    """The first part that can go without a change on any model, a rule's last ones first, and the genome without it."""
    if isinstance(genome, Rule):
        knockouts = reversed(_distinct(_of_rule(genome, models[0][0])))
    else:
        knockouts = iter(_distinct(_of_tree(genome, models[0][0])))
    for knockout in knockouts:
        less = knockout.genome
        if isinstance(less, Tree):
            less = Tree(simplify(less.expression))
        if not knockout.removes or not isinstance(less, (Rule, Tree)) or less.parts >= genome.parts:
            continue
        if _same(less, models):
            return knockout.what, less
    return None


def _same(genome: Genome, models: Sequence[tuple[Problem, NDArray[np.int8]]]) -> bool:
    return all(np.array_equal(genome.allocate(problem), mine) for problem, mine in models)


NOTHING, CHANGED_NOTHING = "changes nothing: could go", "changes nothing here"
STANDS_IN = "changes nothing alone"


def _row(
    knockout: Knockout, labels: Sequence[str], changes: Sequence[dict[str, Any]], measured: float | None
) -> dict[str, Any]:
    first = changes[0]
    others = {
        label: {"fitness": one["fitness"], "change": one["change"]}
        for label, one in zip(labels[1:], changes[1:], strict=True)
    }
    moved = [one["layers"] > 0 for one in changes]
    if not any(moved):
        verdict = NOTHING if knockout.removes else CHANGED_NOTHING
    elif not moved[0]:
        elsewhere = [label for label, one in zip(labels, moved, strict=True) if one]
        verdict = f"nothing here, but on {', '.join(elsewhere)}"
    elif (first["change"] or 0.0) > 0 and all((one["change"] or 0.0) >= 0 for one in others.values()):
        verdict = "better without" if knockout.removes else "better so"
    else:
        verdict = ""
    row = {"what": knockout.what, **first, "others": others, "verdict": verdict}
    return row if measured is None else {**row, "measured": measured}


def _allocated(knockout: Knockout, problem: Problem) -> NDArray[np.int8]:
    if knockout.allocation is not None:
        return knockout.allocation
    assert knockout.genome is not None
    return knockout.genome.allocate(problem)


def _changes(model: Model, own: NDArray[np.int8], allocations: Sequence[NDArray[np.int8]]) -> list[dict[str, Any]]:
    """What each allocation comes to on a model, beside its own."""
    if not allocations:
        return []
    rows = np.stack([own, *allocations])
    scores = model.scores(rows)
    layers = (rows != own) @ layers_per_unit(model.problem)
    change = scores.per_model[:, 0] - scores.per_model[0, 0]
    return [
        {**figures(scores, i), "change": number(float(change[i])), "layers": int(layers[i])}
        for i in range(1, len(rows))
    ]


def _distinct(knockouts: Iterator[Knockout]) -> list[Knockout]:
    """One for each text: a tree may hold a subtree twice, and one of them is taken away at a time."""
    seen: dict[str, int] = {}
    found = []
    for knockout in knockouts:
        seen[knockout.what] = count = seen.get(knockout.what, 0) + 1
        found.append(knockout if count == 1 else dataclasses.replace(knockout, what=f"{knockout.what} ({count})"))
    return found


def _knockouts(subject: Subject) -> Iterator[Knockout]:
    genome, problem = subject.genome, subject.model.problem
    if isinstance(genome, Rule):
        return _of_rule(genome, problem)
    if isinstance(genome, Tree):
        return _of_tree(genome, problem)
    return _of_groups(subject.allocation, problem)


def _of_rule(rule: Rule, problem: Problem) -> Iterator[Knockout]:
    replace, names = dataclasses.replace, problem.menu.names
    if len(rule.protected) > 1:
        yield Knockout(ALL_TYPES, replace(rule, protected=frozenset()))
    for kind, what in zip(sorted(rule.protected), _type_texts(rule), strict=True):
        yield Knockout(what, replace(rule, protected=rule.protected - {kind}))
    if rule.edges:
        yield Knockout(f"without edges {rule.edges:g} {rule.edge_width}", replace(rule, edges=0.0))
    for i, rung in enumerate(rule.rungs):
        rest = (*rule.rungs[:i], *rule.rungs[i + 1 :])
        yield Knockout(f"without {rung.signal} > {rung.above:g} {rung.width}", replace(rule, rungs=rest))
    last = problem.menu.resolve(rule.otherwise)
    for step, word in ((-1, "narrower"), (1, "wider")):
        if 0 <= last + step < len(names):
            other = replace(rule, otherwise=names[last + step])
            yield Knockout(f"else {names[last + step]}, one {word}", other, removes=False)


def _type_texts(genome: Genome) -> list[str]:
    kinds = genome.protected if isinstance(genome, Rule) else ()
    return [f"without {kind} {genome.protected_width}" for kind in sorted(kinds)]  # type: ignore[attr-defined]


def _of_groups(own: NDArray[np.int8], problem: Problem) -> Iterator[Knockout]:
    """Types and blocks of layers put back to the widest, where any of them is narrower."""
    wide = widest(problem)
    groups: dict[str, list[int]] = {}
    for unit, (name, kind) in enumerate(zip(problem.units, problem.types.tolist(), strict=True)):
        groups.setdefault(f"all {kind} at the widest", []).append(unit)
        block = _BLOCK.match(name)
        if block:
            groups.setdefault(f"{block[0].removesuffix('.')} at the widest", []).append(unit)
    for what, units in groups.items():
        changed = own.copy()
        changed[units] = wide[units]
        if not np.array_equal(changed, own):
            yield Knockout(what, allocation=changed, removes=False)


def _of_tree(tree: Tree, problem: Problem) -> Iterator[Knockout]:
    expression = simplify(tree.expression)
    root = nested(expression)
    for count, (path, node, stand_in) in enumerate(_subtrees(root)):
        if count == MOST_SUBTREES:
            break
        yield Knockout(f"without {_text(node)}", Tree(flat(_with(root, path, stand_in))))
    for name in signals_of(expression):
        yield Knockout(
            f"{name} nowhere" if name.startswith(IS_TYPE) else f"{name} at its mean",
            Tree(flat(_swapped(root, name, _everywhere(name, tree, problem)))),
        )


def _text(node: Node, longest: int = 60) -> str:
    text = infix(node)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _subtrees(root: Node) -> Iterator[tuple[tuple[int, ...], Node, Node]]:
    """(path of what is replaced, what is taken away, what stands there then), level by level.

    In the place of a summand stands 0, of a factor 1. Where no constant is neutral, as beside `min` and within a
    choice, the other argument alone takes the operator's place.
    """
    level: list[tuple[tuple[int, ...], Node]] = [((), root)]
    while level:
        below: list[tuple[tuple[int, ...], Node]] = []
        for path, node in level:
            if not isinstance(node, tuple):
                continue
            name, args = node[0], node[1:]
            for i, child in enumerate(args):
                below.append(((*path, i + 1), child))
            if name in ("add", "sub"):
                yield from (((*path, i + 1), child, 0.0) for i, child in enumerate(args) if child != 0.0)
            elif name in ("mul", "div"):
                yield from (((*path, i + 1), child, 1.0) for i, child in enumerate(args) if child != 1.0)
            elif name in ("min", "max", "and", "or"):
                yield from ((path, args[i], args[1 - i]) for i in (0, 1))
            elif name == "where":
                yield from ((path, args[i], args[3 - i]) for i in (1, 2))
        level = below


def _with(node: Node, path: tuple[int, ...], stand_in: Node) -> Node:
    if not path:
        return stand_in
    assert isinstance(node, tuple)
    place = path[0]
    return (*node[:place], _with(node[place], path[1:], stand_in), *node[place + 1 :])


def _swapped(node: Node, name: str, stand_in: Node) -> Node:
    if isinstance(node, tuple):
        return (node[0], *(_swapped(child, name, stand_in) for child in node[1:]))
    return stand_in if node == name else node


def _everywhere(name: str, tree: Tree, problem: Problem) -> Node:
    """The signal's mean on the model, that of the allocation where it tells of this; a flag is false."""
    if name.startswith(IS_TYPE):
        return ("greater", 0.0, 1.0)
    if name in STATE or name == SIZE_SHARE:
        state = state_of(problem, tree.allocate(problem))
        if name in STATE:
            return float(state[name])
        return float(np.mean(signal_values(problem, "size")) / (state["mean_bits"] or 1.0))
    return float(np.mean(signal_values(problem, name)))
