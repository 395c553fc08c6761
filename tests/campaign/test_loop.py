"""Journal, resume, stopping: the campaign's loop on the seed suite with the local executor."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evoquant import api
from evoquant.campaign import loop
from evoquant.campaign.build import Campaign
from evoquant.campaign.evaluate import SeparableEstimator
from evoquant.campaign.finished import resolved_config
from evoquant.campaign.storage import CHAMPION, CHECKPOINT, JOURNAL, REPORT, TIMINGS, RunDir
from evoquant.errors import ConfigError, InputError, Interrupted, RunDirError
from evoquant.scoring.compile_time import CLOCK
from evoquant.testing.interrupt import StopAfter

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["executor.kind=local", "stop.generations=6", "search.population=20"]


def run(out, *more, config="evolve"):
    return api.run(CONFIGS / f"{config}.yaml", out=out, overrides=[*SMALL, *more])


def journal(path):
    return (path / JOURNAL).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out)
    return out


def test_a_run_leaves_what_it_promises(whole):
    names = {path.name for path in whole.iterdir()}
    promised = {"config.yaml", "resolved.json", "environment.json", JOURNAL, TIMINGS, CHECKPOINT, CHAMPION, REPORT}
    assert promised <= names
    lines = [json.loads(line) for line in journal(whole).splitlines()]
    assert [line["generation"] for line in lines] == list(range(6))
    report = json.loads((whole / REPORT).read_text())
    assert set(report["champion"]["scores"]) == {"train", "valid", "test"}
    assert report["evaluations"]["asked"] == 20 + 5 * 16


def test_the_same_seed_gives_the_same_journal_and_another_seed_another(whole, tmp_path):
    run(tmp_path / "same")
    run(tmp_path / "other", "seed=1")
    assert journal(tmp_path / "same") == journal(whole)
    assert (tmp_path / "same" / CHAMPION).read_bytes() == (whole / CHAMPION).read_bytes()
    assert journal(tmp_path / "other") != journal(whole)


@pytest.mark.parametrize("stops", [[1], [3], [5], [1, 1], [2, 3]])
@pytest.mark.parametrize("checkpoint", ["kept", "lost", "damaged"])
def test_interrupted_and_resumed_is_byte_identical(whole, tmp_path, stops, checkpoint):
    out = tmp_path / "run"
    for i, generations in enumerate(stops):
        with pytest.raises(Interrupted, match="evoquant resume"):
            if i == 0:
                api.run(CONFIGS / "evolve.yaml", out=out, overrides=SMALL, observer=StopAfter(generations))
            else:
                api.resume(out, observer=StopAfter(generations))
        if checkpoint == "lost":
            (out / CHECKPOINT).unlink()
        elif checkpoint == "damaged":
            (out / CHECKPOINT).write_text('{"version": 1')
    assert api.resume(out).fresh
    assert journal(out) == journal(whole)
    assert (out / CHAMPION).read_bytes() == (whole / CHAMPION).read_bytes()
    assert (out / REPORT).read_bytes() == (whole / REPORT).read_bytes()
    assert not api.resume(out).fresh


def test_a_finalist_from_the_checkpoint_lists_its_layers_in_the_same_order(tmp_path):
    out = run(tmp_path / "run", "genome={kind: direct}", "models={train: [seed/test], valid: [], test: []}").path
    champion = (out / CHAMPION).read_bytes()
    (out / CHAMPION).unlink()
    api.resume(out)
    assert (out / CHAMPION).read_bytes() == champion


def interrupted_at(step):
    """A trace for `sys.settrace` that interrupts the third generation before the `step`-th line it executes."""
    left = [step]

    def line(frame, event, _):
        left[0] -= event == "line"
        if event == "line" and left[0] == 0:
            raise KeyboardInterrupt
        return line

    def call(frame, event, _):
        return line if frame.f_code is loop._generation.__code__ and frame.f_locals["state"].generation == 2 else None

    return call


@pytest.mark.long
def test_interrupted_between_any_two_lines_of_a_generation(whole, tmp_path):
    """What a checkpoint holds is of one moment."""
    before, step = sys.gettrace(), 0
    while True:
        step += 1
        out = tmp_path / f"run-{step}"
        sys.settrace(interrupted_at(step))
        try:
            run(out)
            break
        except Interrupted:
            pass
        finally:
            sys.settrace(before)
        api.resume(out)
        assert journal(out) == journal(whole), f"line event {step}"
    assert step > 20


@pytest.mark.parametrize("cut", [1, 40, 4000])
def test_a_torn_last_line_is_evaluated_again(whole, tmp_path, cut):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "evolve.yaml", out=out, overrides=SMALL, observer=StopAfter(4))
    (out / JOURNAL).write_bytes(journal(out)[:-cut])
    api.resume(out)
    assert journal(out) == journal(whole)


def test_a_damaged_line_before_the_last_is_named(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "evolve.yaml", out=out, overrides=SMALL, observer=StopAfter(4))
    lines = journal(out).splitlines(keepends=True)
    lines[1] = b"garbage\n"
    (out / JOURNAL).write_bytes(b"".join(lines))
    with pytest.raises(RunDirError, match="line 2 is damaged"):
        api.resume(out)


def test_a_journal_that_says_otherwise_is_refused_naming_the_generation(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "evolve.yaml", out=out, overrides=SMALL, observer=StopAfter(4))
    (out / CHECKPOINT).unlink()
    lines = journal(out).decode().splitlines(keepends=True)
    lines[2] = lines[2].replace('"median":', '"median":1', 1)
    (out / JOURNAL).write_text("".join(lines))
    with pytest.raises(RunDirError, match=r"generation 2 evaluates differently.*environment\.json"):
        api.resume(out)


def test_killed_twice_at_any_moment(whole, tmp_path):
    out = tmp_path / "run"
    overrides = [word for item in SMALL for word in ("--set", item)]
    start = [sys.executable, "-m", "evoquant.cli", "run", str(CONFIGS / "evolve.yaml"), "--out", str(out), *overrides]
    again = [sys.executable, "-m", "evoquant.cli", "resume", str(out)]
    for command in (start, again):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = len(journal(out)) if (out / JOURNAL).exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if (out / JOURNAL).exists() and len(journal(out)) > before:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(again, check=True, capture_output=True)
    assert journal(out) == journal(whole)
    assert (out / CHAMPION).read_bytes() == (whole / CHAMPION).read_bytes()


def test_a_used_run_directory_is_refused_with_the_resume_command(whole):
    with pytest.raises(RunDirError, match="evoquant resume"):
        run(whole)


def test_two_processes_on_one_run_directory(whole):
    with RunDir.open(whole), pytest.raises(RunDirError, match="another process"):
        RunDir.open(whole)


def test_another_config_is_refused(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "evolve.yaml", out=out, overrides=SMALL, observer=StopAfter(1))
    resolved = json.loads((out / "resolved.json").read_text())
    resolved["config"]["seed"] = 5
    (out / "resolved.json").write_text(json.dumps(resolved))
    with pytest.raises(RunDirError, match="hash"):
        api.resume(out)


def test_a_config_that_cannot_be_built_leaves_the_place_free(tmp_path):
    out = tmp_path / "run"
    for name, fault in (
        ("nosuch", "unknown signal 'nosuch'"),
        ("loss_per_bit:INT3", "signal 'loss_per_bit:INT3': the menu .* has no INT3"),
        ("loss_per_bit:FP32", "FP32 is the widest of the menu"),
    ):
        with pytest.raises(InputError, match=fault) as caught:
            run(out, f"genome.signals=[{name}]")
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
    run(out)


@pytest.mark.parametrize(
    ("stop", "generations", "why"),
    [
        ("stop.stagnation=2", None, "no better fitness in 2 generations"),
        ("stop.target=0.01", 1, "fitness 0.01 reached"),
        ("stop.evaluations=30", 2, "30 evaluations asked"),
        ("stop.generations=2", 2, "2 generations"),
    ],
)
def test_stopping(tmp_path, stop, generations, why):
    outcome = run(tmp_path / "run", stop)
    assert outcome.champion.provenance["stopped"] == why
    lines = journal(tmp_path / "run").splitlines()
    if generations is not None:
        assert len(lines) == generations
    else:
        fitness = [json.loads(line)["champion"]["fitness"] for line in lines]
        assert len(set(fitness[-3:])) == 1


def test_wall_time_ends_after_a_whole_generation_and_resume_goes_on(whole, tmp_path):
    out = tmp_path / "run"
    outcome = run(out, "stop.wall_time_s=0.000001")
    assert outcome.champion is None
    assert not (out / CHAMPION).exists()
    for _ in range(20):  # each resume has a new allowance, too short for more than the check
        if api.resume(out).champion is not None:
            break
        assert journal(whole).startswith(journal(out))
    resolved = json.loads((out / "resolved.json").read_text())
    assert resolved["config"]["stop"]["wall_time_s"] == 0.000001


def test_several_models_and_other_objectives(tmp_path):
    models = "models={train: [seed/train, seed/valid], valid: [], test: [seed/test]}"
    for i, more in enumerate(
        (["aggregate=min"], ["objective={kind: feasible_first}"], ["objective={kind: budget, effective_bits: 8}"])
    ):
        outcome = run(tmp_path / str(i), models, *more)
        assert set(outcome.champion.scores) == {"train", "test"}
        assert len(outcome.champion.scores["train"]["per_model"]["fitness"]) == 2


def test_direct_genomes(tmp_path):
    one = "models={train: [seed/test], valid: [], test: []}"
    outcome = run(tmp_path / "one", "genome={kind: direct}", one)
    assert outcome.champion.genome.to_dict()["model"] == "seed/test"
    with pytest.raises(ConfigError, match=r"genome\.kind: direct"):
        run(tmp_path / "two", "genome={kind: direct}")


def test_own_code_needs_to_be_allowed_again(tmp_path):
    out = tmp_path / "run"
    code = "evoquant.search.random:RandomSearch"
    overrides = ["executor.kind=local", "stop.generations=3", f"search={{kind: '{code}', options: {{population: 5}}}}"]
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "evolve.yaml", out=out, overrides=overrides, observer=StopAfter(1))
    with pytest.raises(InputError, match=f"--allow-code {code}"):
        api.resume(out)
    assert api.resume(out, allow_code=[code]).champion is not None


def test_unlisted_populations_carry_a_digest(tmp_path):
    outcome = run(tmp_path / "run", "search.population=2100", "stop.generations=2")
    line = json.loads(journal(outcome.path).splitlines()[0])
    assert set(line["population"]) == {"first_id", "size", "digest"}


def test_interrupted_again_while_it_closes_it_still_says_how_to_go_on(tmp_path, monkeypatch):
    def close(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Campaign, "close", close)
    with pytest.raises(Interrupted, match="interrupted after 2 generations; continue with: evoquant resume"):
        api.run(CONFIGS / "evolve.yaml", out=tmp_path / "run", overrides=SMALL, observer=StopAfter(2))


def test_a_resumed_run_picks_its_executor_by_a_generation_that_it_evaluated(tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        run_auto(tmp_path / "run", StopAfter(3))
    (tmp_path / "run" / CHECKPOINT).unlink()
    asked = []
    monkeypatch.setattr(loop, "auto_choice", lambda *given: asked.append(given) or ("local", "asked to"))
    api.resume(tmp_path / "run")
    assert [left for _, left, _ in asked] == [2], "three of six generations were replayed, one was evaluated to measure"


def test_compiling_kernels_is_no_part_of_what_a_batch_takes(tmp_path, monkeypatch):
    asked, took = [], []
    before = CLOCK.seconds

    def evaluate(self, batch, known):
        if not took:
            CLOCK.start()
            time.sleep(0.5)
            CLOCK.end()
        took.append(batch)
        return plain(self, batch, known)

    plain = SeparableEstimator.evaluate
    monkeypatch.setattr(SeparableEstimator, "evaluate", evaluate)
    monkeypatch.setattr(loop, "auto_choice", lambda *given: asked.append(given) or ("local", "asked to"))
    api.run(CONFIGS / "evolve.yaml", out=tmp_path / "run", overrides=[*SMALL, "executor.kind=auto"])
    [(seconds, *_)] = asked
    assert 0 < seconds < 0.5 <= CLOCK.seconds - before


def run_auto(out, observer):
    api.run(CONFIGS / "evolve.yaml", out=out, overrides=[*SMALL, "executor.kind=auto"], observer=observer)


def test_a_cache_that_only_the_run_directory_names_is_made_nowhere(tmp_path):
    with pytest.raises(Interrupted):
        run_auto(tmp_path / "run", StopAfter(2))
    path = tmp_path / "run" / "resolved.json"
    data = json.loads(path.read_text())
    for place in ("elsewhere", "is one"):
        data["config"]["cache"] = str(tmp_path / place)
        path.write_text(json.dumps(data))
        (tmp_path / "is one" / "networks").mkdir(parents=True, exist_ok=True)
        named = resolved_config(RunDir.open(tmp_path / "run", hold=False)).cache
        assert named == (str(tmp_path / place) if place == "is one" else None)
    data["config"]["cache"] = str(tmp_path / "elsewhere")
    path.write_text(json.dumps(data))
    api.resume(tmp_path / "run", executor="local")
    assert not (tmp_path / "elsewhere").exists()
