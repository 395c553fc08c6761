import ast
import subprocess
import sys
from pathlib import Path

import pytest

import evoquant.testing
from evoquant.testing.clauses import ConformanceError, no_global_randomness, require, run_checks


def test_every_protocol_has_one_suite_that_is_documented():
    for name in evoquant.testing.__all__:
        assert getattr(evoquant.testing, name).__doc__.strip(), name
    with pytest.raises(AttributeError, match="check_serach"):
        evoquant.testing.check_serach  # noqa: B018


def test_no_suite_asserts_what_python_o_leaves_out():
    files = list(Path(evoquant.testing.__file__).parent.glob("*.py"))
    assert len(files) > 8
    for file in files:
        found = [node.lineno for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Assert)]
        assert not found, f"{file.name}, line {found[0]}: use evoquant.testing.clauses.require"


def test_workers_that_import_a_factory_load_no_campaign():
    code = "import sys, evoquant.testing.executors; print('evoquant.campaign' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_what_a_check_raises_says_what_was_checked():
    def check_sound():
        """It holds."""

    def check_broken(what):
        """It does not.

        More words.
        """
        require(False, what)

    run_checks((check_sound,))
    with pytest.raises(ConformanceError, match=r"^the clause") as caught:
        run_checks((check_broken,), "the clause")
    assert isinstance(caught.value, AssertionError)
    assert caught.value.__notes__ == ["evoquant.testing, check_broken: It does not."]


def test_streams_that_nobody_draws_from_are_left_alone():
    with no_global_randomness("nobody"):
        pass
