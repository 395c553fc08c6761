import numpy as np
import pytest

from evoquant.genomes.expression import depth_of
from evoquant.genomes.tree import Tree
from evoquant.genomes.tree_simplify import simplify

from .conftest import random_problem, random_trees

PROBLEMS = [random_problem(seed) for seed in range(12)]


def test_simplifying_changes_no_allocation():
    shorter = 0
    for tree in random_trees(300, seed=1):
        simple = Tree(simplify(tree.expression))
        assert simple.parts <= tree.parts
        assert depth_of(simple.expression) <= depth_of(tree.expression)
        shorter += simple.parts < tree.parts
        for problem in PROBLEMS[:: 3 if tree.parts > 9 else 1]:
            np.testing.assert_array_equal(simple.allocate(problem), tree.allocate(problem), err_msg=str(tree))
    assert shorter > 100


def test_simplifying_twice_changes_nothing_more():
    for tree in random_trees(300, seed=2):
        once = simplify(tree.expression)
        assert simplify(once) == once, once


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (("add", "loss", "mul", "mul", 0.0062, "bits", "share"), "loss + 0.0062·bits·share"),
        (("add", "mul", "share", "mul", "bits", 0.0062, "loss"), "0.0062·bits·share + loss"),
        (("where", "is_Conv", "loss", "bits"), "loss if is_Conv else bits"),
        (("where", "not", "is_Conv", "loss", "bits"), "bits if is_Conv else loss"),
        (("where", "greater", "loss", 1.0, "loss", "bits"), "loss if loss > 1 else bits"),
        (("where", "is_Conv", "position", "bits"), "0 if is_Conv else bits"),
        (("neg", "bits"), "−bits"),
        (("neg", "neg", "bits"), "bits"),
        (("neg", "sub", "loss", "bits"), "bits − loss"),
        (("mul", "add", "loss", 1.0, "bits"), "(loss + 1)·bits"),
        (("sub", "loss", "sub", "bits", "share"), "loss − (bits − share)"),
        (("sub", "sub", "loss", "bits", "share"), "loss − bits − share"),
        (("div", "loss", "mul", "bits", "share"), "loss/(bits·share)"),
        (("square", "add", "loss", "bits"), "(loss + bits)²"),
        (("sqrt", "neg", "loss"), "√loss"),
        (("mul", "neg", "loss", "neg", "loss"), "loss²"),
        (("sqrt", "add", "loss", "bits"), "√(loss + bits)"),
        (("min", "loss", "add", "bits", 2.0), "min(loss, bits + 2)"),
        (("add", "loss", "mul", 2.0, "sub", 3.0, 3.0), "loss"),
        (("add", "loss", "neg", "bits"), "loss − bits"),
        (("div", "bits", "sub", "share", "share"), "0"),  # bits / 0 is 1 for every width
        (("mul", "loss", "div", "bits", "bits"), "loss"),
        (("where", "greater", 2.0, 1.0, "loss", "bits"), "loss"),
        (("where", "and", "is_Conv", "greater", 1.0, 2.0, "loss", "bits"), "bits"),
        (("where", "and", "is_Conv", "or", "is_Linear", "is_Conv", "loss", "bits"),
         "loss if is_Conv and (is_Linear or is_Conv) else bits"),
        (("add", "loss", "where", "is_Conv", "bits", 2.0), "loss + (bits if is_Conv else 2)"),
        (("share",), "0"),
        (("add", "loss", "position"), "loss + position"),  # dropping it could round differently
        (("where", "is_a b", "loss", "bits"), "loss if 'is_a b' else bits"),
        (("mul", -0.000012345, "loss"), "−1.234e−05·loss"),
    ],
)  # fmt: skip
def test_formula(expression, text):
    assert Tree(expression).text == text


def test_text_is_one_line():
    for kind in ("line\nbreak", '"', "a\u202eb"):
        text = Tree(("where", f"is_{kind}", "loss", "bits")).text
        assert text.isprintable()
