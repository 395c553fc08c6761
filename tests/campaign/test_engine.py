"""The loop's hot path: lines appended by a thread, states written out late, records left out, copies found by hash."""

import hashlib
import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoquant import api
from evoquant.campaign.checkpoint import Checkpoint, JournalDigest, kept_state, load_checkpoint, save_checkpoint
from evoquant.campaign.evaluate import SeparableEstimator, _distinct, _LastSums
from evoquant.campaign.hall import Hall
from evoquant.campaign.journal import _number, _table
from evoquant.campaign.storage import CHECKPOINT, JOURNAL, RunDir
from evoquant.campaign.storage_appender import Appender
from evoquant.errors import Interrupted, RunDirError
from evoquant.execution.local import LocalExecutor
from evoquant.files import canonical_json
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace, default_signals
from evoquant.profiles.builtin import builtin_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.rows_kernel import distinct_rows, hash_rows
from evoquant.search.base import EQUALS, LARGE, CandidateBatch, OperatorColumn, best_first
from evoquant.testing.interrupt import StopAfter

CONFIG = Path(__file__).parents[2] / "configs" / "evolve.yaml"
LARGE_RUN = ["executor.kind=local", "stop.generations=5"]


def test_lines_are_appended_in_order_and_durable_once_drained(tmp_path):
    appender = Appender(RunDir(tmp_path), JOURNAL)
    lines = [f'{{"generation":{i}}}' for i in range(500)]
    for i, line in enumerate(lines):
        appender.add(line)
        if i == 250:
            appender.drain()
            assert RunDir(tmp_path).journal() == lines[:251]
    appender.close()
    assert RunDir(tmp_path).journal() == lines


def test_a_disk_that_refuses_is_heard_of(tmp_path):
    appender = Appender(RunDir(tmp_path / "missing"), JOURNAL)
    appender.add("{}")
    with pytest.raises(RunDirError, match="cannot be appended to"):
        appender.drain()
    with pytest.raises(RunDirError, match="cannot be appended to"):
        appender.add("{}")
    appender.close()


class Strikes:
    """An interrupt at the n-th instruction of the appender or what it calls in Python, as a signal may come there."""

    def __init__(self, number):
        self.left = number

    def __call__(self, frame, event, argument):
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def test_an_interrupt_at_any_instruction_leaves_nobody_waiting(tmp_path):
    number, struck = 0, True
    first, second = '{"generation":0}', '{"generation":1}'
    while struck:
        number += 1
        (tmp_path / str(number)).mkdir()
        appender = Appender(RunDir(tmp_path / str(number)), JOURNAL)
        appender.add(first)
        strikes = Strikes(number)
        try:
            sys.settrace(strikes)
            appender.add(second)
            appender.drain()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        struck = strikes.left == 0
        closing = threading.Thread(target=appender.close, daemon=True)
        closing.start()
        closing.join(20)
        assert not closing.is_alive(), f"it waits for ever after an interrupt at instruction {number}"
        assert RunDir(tmp_path / str(number)).journal() in ([first], [first, second])
    assert number > 50


def test_nothing_added_needs_no_thread(tmp_path):
    appender = Appender(RunDir(tmp_path), JOURNAL)
    appender.drain()
    appender.close()
    assert not (tmp_path / JOURNAL).exists()


class Plain:
    """A search of somebody's own, whose state is plain data."""

    def state(self):
        return {"best": [1.5, None], "count": 3}


class Held(Plain):
    def snapshot(self):
        arrays = {"genes": np.array([[0.1, 1e-5]]), "ids": np.array([7]), "whole": np.array([True, False])}
        return lambda: arrays | {"none": np.empty((0, 3))}


@pytest.mark.parametrize("search", [Plain(), Held()])
def test_what_is_kept_of_a_search_comes_back_from_a_checkpoint(tmp_path, search):
    run, lines, digest = RunDir(tmp_path), ['{"a":1}'], JournalDigest()
    digest.add(lines[0])
    kept = kept_state(search)
    save_checkpoint(run, "hash", digest.value(), Checkpoint(1, kept, {}, [], 0))
    back = load_checkpoint(run, "hash", lines).search()
    for key, value in kept().items():
        np.testing.assert_array_equal(back[key], value)
        assert type(back[key]) is type(value) and getattr(back[key], "dtype", 0) == getattr(value, "dtype", 0)


@pytest.mark.parametrize("damage", [{"dtype": "|O8"}, {"base64": "!"}, {"base64": "AAAA"}, {"shape": [5]}])
def test_a_damaged_array_is_no_checkpoint(tmp_path, damage):
    run = saved(tmp_path)
    data = run.read(CHECKPOINT)
    del data["sha256"]
    for change in ({}, damage):  # each with a digest that is right
        data["search"]["genes"] |= change
        body = canonical_json(data)[:-1] + ',"sha256":"'
        run.put(CHECKPOINT, f'{body}{hashlib.sha256(body.encode()).hexdigest()}"}}')
        assert (load_checkpoint(run, "hash", ["{}"]) is None) == bool(change)


def test_a_checkpoint_with_one_other_byte_is_none(tmp_path):
    """A state that is read, and is another, would go on with another search."""
    run = saved(tmp_path)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    assert load_checkpoint(run, "hash", ["{}"]) is not None
    for place in range(len(whole)):
        (tmp_path / CHECKPOINT).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert load_checkpoint(run, "hash", ["{}"]) is None, place


def saved(folder):
    run, digest = RunDir(folder), JournalDigest()
    digest.add("{}")
    save_checkpoint(run, "hash", digest.value(), Checkpoint(1, kept_state(Held()), {}, [], 0))
    return run


def record(i, fitness, parts, digest):
    return {"id": i, "fitness": fitness, "parts": parts, "cost": 1, "digest": digest, "genome": {"a": digest}}


@given(
    st.lists(st.lists(st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.integers(0, 1), st.sampled_from("abcdefg")))),
    st.booleans(),
    st.booleans(),
)
def test_records_that_the_hall_does_not_want_change_nothing(generations, earlier_wins, by_form):
    whole, some = (Hall(3, earlier_wins=earlier_wins, by_form=by_form) for _ in range(2))
    number = 0
    for rows in generations:
        records = [record(number + i, *row) for i, row in enumerate(rows)]
        number += len(records)
        whole.update(records)
        some.update([r for r in records if some.wants(r["fitness"], r["parts"], r["cost"], r["digest"], r["id"])])
        assert some.records == whole.records


def hashes_of(words):
    hashes = np.empty(len(words), dtype=np.uint64)
    hash_rows(words, 0, len(words), hashes)
    return hashes


@pytest.mark.parametrize(("n", "width"), [(1, 1), (2, 1), (60, 1), (60, 2), (400, 4)])
def test_copies_are_those_that_sorting_finds(n, width):
    rows = generator_for(n, width, "test").integers(0, 3, (n, width)).astype(np.float64)
    words = rows.view(np.uint64)
    firsts, places = distinct_rows(words, hashes_of(words))
    np.testing.assert_array_equal(rows[firsts][places], rows)
    assert len(firsts) == len(np.unique(rows, axis=0)) and (np.diff(firsts) > 0).all()


def test_rows_whose_hashes_meet_are_compared():
    rows = np.arange(20, dtype=np.uint64).reshape(-1, 2) // np.uint64(3)
    firsts, places = distinct_rows(rows, np.zeros(len(rows), dtype=np.uint64))
    np.testing.assert_array_equal(rows[firsts][places], rows)
    assert len(firsts) == len(np.unique(rows, axis=0))


def test_hashes_of_different_rows_differ():
    flags = np.array(np.meshgrid(*[[0.0, 1.0]] * 14)).reshape(14, -1).T
    words = np.ascontiguousarray(np.concatenate([flags, 2.0 + flags, 0.001 * flags])).view(np.uint64)
    assert len(np.unique(hashes_of(words))) == len(np.unique(words, axis=0))


def test_a_large_batch_is_scored_once_for_each_distinct_row():
    genes = np.repeat(np.arange(LARGE // 2, dtype=np.float64), 2).reshape(-1, 1)
    batch = CandidateBatch(0, np.zeros((LARGE, 2), dtype=np.int64), ("random",) * LARGE, genes=genes)
    items, inverse, firsts = _distinct(batch)
    np.testing.assert_array_equal(items[inverse], genes)
    np.testing.assert_array_equal(firsts, np.arange(0, LARGE, 2))


@given(st.lists(st.lists(st.floats(allow_infinity=False), min_size=3, max_size=3), max_size=5))
def test_numbers_are_written_as_json_writes_them(rows):
    def plain(v):
        return None if v != v else int(v) if v.is_integer() else v

    assert _table(np.array(rows, dtype=np.float64).reshape(-1, 3)) == canonical_json(
        [[plain(v) for v in r] for r in rows]
    )
    assert [_number(v) for r in rows for v in r] == [canonical_json(plain(v)) for r in rows for v in r]


def test_infinity_is_no_json():
    with pytest.raises(ValueError, match="JSON"):
        _table(np.array([[np.inf]]))


def test_only_the_first_of_many_equals_compete_by_digest():
    n, asked = EQUALS * 3, []
    zeros = np.zeros(n, dtype=np.int64)
    order = best_first(zeros.astype(float), zeros, zeros, lambda row: asked.append(row) or f"{n - row:09d}", 2, EQUALS)
    assert order.tolist() == [EQUALS - 1, EQUALS - 2] and sorted(asked) == list(range(EQUALS))


def test_an_operator_column_reads_as_the_names():
    column = OperatorColumn(np.array([1, 0, 1], dtype=np.int8), ("copy", "random"))
    assert tuple(column) == ("random", "copy", "random") and column == ("random", "copy", "random")
    assert column[1:] == ("copy", "random") and column[-1] == "random" and len(column) == 3


@pytest.mark.parametrize("population", [LARGE, 2500])
def test_a_large_run_is_interrupted_and_resumed_to_the_same_bytes(tmp_path, population):
    options = [*LARGE_RUN, f"search.population={population}"]
    api.run(CONFIG, out=tmp_path / "whole", overrides=options)
    whole = (tmp_path / "whole" / JOURNAL).read_bytes()
    for line in whole.decode().splitlines():
        assert canonical_json(json.loads(line)) == line
    for checkpoint in (True, False):
        out = tmp_path / f"run-{checkpoint}"
        with pytest.raises(Interrupted):
            api.run(CONFIG, out=out, overrides=options, observer=StopAfter(3))
        assert len((out / JOURNAL).read_bytes().splitlines()) == 3
        if not checkpoint:
            (out / CHECKPOINT).unlink()
        api.resume(out)
        assert (out / JOURNAL).read_bytes() == whole


class Dear(RuleSpace):
    """Rules that count which of them are scored."""

    dear = True

    def __init__(self):
        super().__init__(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 2)
        self.scored = []

    def sums(self, genes, problem):
        self.scored += [row.tobytes() for row in genes]
        return super().sums(genes, problem)


class Cheap(Dear):
    dear = False


def evaluated(space, batches, *, forget=()):
    """Evaluations of batches of genes, one after the other, with a new start before those in `forget`."""
    problem = compile_problem(builtin_profile("seed/train"), SEED_MENU)
    estimator = SeparableEstimator(space, (problem,), Cliff(), "mean", 7)
    found = []
    with LocalExecutor() as executor:
        estimator.use(executor)
        for number, genes in enumerate(batches):
            if number in forget:
                estimator.restore(estimator.state())
            batch = CandidateBatch(0, np.full((len(genes), 2), -1), ("random",) * len(genes), genes=genes)
            found.append(estimator.evaluate(batch, {}))
    return found, estimator.counters


def test_what_the_last_generation_held_is_not_scored_again_where_it_is_dear():
    dear, cheap = Dear(), Cheap()
    first, second = (dear.canonical(dear.sample(generator_for(7, i, "test"), 20)) for i in range(2))
    batches = [first, np.concatenate([second, first[:9], second[:4]]), second, first]
    ours, counters = evaluated(dear, batches)
    theirs, plain = evaluated(cheap, batches)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("fitness", "cost", "retention", "parts"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert counters == plain and counters.asked == 93 and counters.distinct == 20 + 29 + 20 + 20
    assert len(cheap.scored) == counters.distinct
    # Of the third batch all were known, and of the fourth none: only the last batch is remembered.
    assert len(dear.scored) == 20 + 20 + 0 + 20


def test_after_a_new_start_everything_is_scored_to_the_same():
    dear = Dear()
    genes = dear.canonical(dear.sample(generator_for(7, 0, "test"), 20))
    found, counters = evaluated(dear, [genes, genes, genes], forget=(2,))
    assert len(dear.scored) == 40 and counters.distinct == 60
    np.testing.assert_array_equal(found[0].fitness, found[1].fitness)
    np.testing.assert_array_equal(found[0].fitness, found[2].fitness)


def test_what_failed_is_tried_again():
    space = Dear()
    genes = space.canonical(space.sample(generator_for(7, 0, "test"), 5))
    failing = {2}

    def scored(rows):
        return np.ones((len(rows), 1), dtype=int), np.ones((len(rows), 1), dtype=int), dict.fromkeys(failing, "raised")

    last = _LastSums()
    assert last.sums(genes, scored)[2] == {2: "raised"}
    failing.clear()
    asked = []
    assert last.sums(genes, lambda rows: asked.append(rows) or scored(rows))[2] == {}
    np.testing.assert_array_equal(asked[0], genes[[2]])
