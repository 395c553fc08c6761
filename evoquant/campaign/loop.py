"""The only loop: ask → evaluate → journal → tell → checkpoint.

Progress, budgets, interruption and resume are written once, here, and any search gets them.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evoquant.campaign.all_failed import all_failed
from evoquant.campaign.archive import archive_data
from evoquant.campaign.build import Campaign, make_executor
from evoquant.campaign.checkpoint import Checkpoint, JournalDigest, kept_state, load_checkpoint, save_checkpoint
from evoquant.campaign.environment import differences, environment_record
from evoquant.campaign.finals import choose_champion
from evoquant.campaign.hall import Hall
from evoquant.campaign.journal import GeneHash, candidate_record, failures_of, generation_line, is_listed
from evoquant.campaign.observer import Observer, Progress
from evoquant.campaign.storage import ARCHIVE, CHAMPION, ENVIRONMENT, GATE, JOURNAL, TIMINGS, RunDir
from evoquant.campaign.storage_appender import Appender
from evoquant.errors import CampaignError, Interrupted, RunDirError
from evoquant.execution import auto_choice
from evoquant.files import pretty_json
from evoquant.scoring.compile_time import CLOCK

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.campaign.journal import Line
    from evoquant.campaign.steady import SteadyState
    from evoquant.search.base import CandidateBatch, EvaluationBatch

CHECKPOINT_EVERY_S = 1.0
CHECKPOINT_SHARE = 0.05  # of the time at most goes into checkpoints


@dataclass
class _State:
    """Where the loop stands.

    Attributes:
        steady: who is in flight, of a search without generations.
        journal: appends the lines while the search goes on: cheap to evaluate again, they need not be durable at once.
            None where every line is, before the search goes on.
        finished: journal digest and checkpoint after the last whole generation. An interruption may come between any
            two statements, so what is saved is replaced in one.
        saving_s: seconds that the last save took.
    """

    hall: Hall
    journal: Appender | None = None
    generation: int = 0
    since_improvement: int = 0
    digest: JournalDigest = field(default_factory=JournalDigest)
    finished: tuple[str, Checkpoint] | None = None
    saved_at: float = 0.0
    saving_s: float = 0.0
    steady: SteadyState | None = None


def run_loop(campaign: Campaign, run: RunDir, observer: Observer) -> Champion | None:
    """Run, or go on with, the campaign of a run directory that holds its config.

    Returns:
        The champion, or None where the wall time ended the run before its end.

    Raises:
        Interrupted: by the user; resumable.
        CampaignError: every candidate of the first generations failed, or the workers cannot go on.
        RunDirError: what is evaluated again differs from the journal.
    """
    started = time.monotonic()
    lines = run.journal(repair=True)
    state = _restore(campaign, run, lines, observer)
    try:
        while (reason := _stop(campaign, run, state)) is None:
            limit = campaign.config.stop.wall_time_s
            fresh = state.generation > len(lines)  # every allowance is good for one generation at least
            if limit is not None and fresh and time.monotonic() - started >= limit:
                run.append(TIMINGS, {"event": "wall_time", "generation": state.generation, "limit_s": limit})
                _save(campaign, run, state)
                observer.message(f"wall time of {limit:g} s reached after generation {state.generation - 1}")
                return None
            _generation(campaign, run, state, lines, observer)
        if state.steady is not None and state.steady.in_flight:
            _generation(campaign, run, state, lines, observer, closing=True)
        _save(campaign, run, state)
        if not state.hall.records:
            raise _nobody(run, state)
        observer.message(f"search ended: {reason}")
        champion = choose_champion(campaign, state.hall.records, _provenance(campaign, state, reason))
        archive = archive_data(campaign)
        gate = _gate(campaign, champion)
    except KeyboardInterrupt:
        _save(campaign, run, state)
        finished = 0 if state.finished is None else state.finished[1].generations
        raise Interrupted(
            f"interrupted after {finished} generations; continue with: evoquant resume {run.path}"
        ) from None
    finally:
        if state.journal is not None:
            state.journal.close()
    if archive is not None:
        run.put(ARCHIVE, pretty_json(archive))
    if gate is not None:
        run.put(GATE, pretty_json(gate))
    for warning in (*champion.provenance.get("warnings", ()), *(gate or {}).get("warnings", ())):
        observer.message(f"warning: {warning}")
    run.put(CHAMPION, champion.to_json())
    return champion


def _generation(
    campaign: Campaign, run: RunDir, state: _State, lines: list[str], observer: Observer, *, closing: bool = False
) -> None:
    """One turn of the circle; a journalled generation must come out the same.

    Without generations one is as many arrivals; `closing` waits for all that are in flight.
    """
    began, compiling = time.monotonic(), CLOCK.seconds
    journalled = lines[state.generation] if state.generation < len(lines) else None
    hashed = None
    if state.steady is not None:
        batch, evaluations = state.steady.line(journalled, closing=closing)
    else:
        batch = campaign.search.ask()
        known = failures_of(json.loads(journalled), batch.first_id) if journalled is not None else {}
        hashed = None if is_listed(batch, measured=campaign.measured) else GeneHash(batch)
        evaluations = campaign.estimator.evaluate(batch, known)
        if hashed is not None:
            hashed.scored(evaluations.fitness, batch.parents)
    before = state.hall.records[0] if state.hall.records else None
    records = _records(campaign, state, batch, evaluations)
    if state.generation not in campaign.afterwards:
        state.hall.update(records)
    champion = state.hall.records[0] if state.hall.records else None
    improved = champion is not None and (before is None or champion["fitness"] > before["fitness"])
    record = generation_line(
        state.generation,
        batch,
        evaluations,
        best=records[0] if records else None,
        champion=champion,
        counters=campaign.estimator.counters,
        measured=campaign.measured,
        hashed=hashed,
    )
    line = record.text
    if journalled is None:
        if state.journal is None:
            run.append_line(JOURNAL, line)
        else:
            state.journal.add(line)
        _log_timing(campaign, run, state.generation, time.monotonic() - began)
    elif line != journalled:
        raise _mismatch(campaign, run, state.generation)
    if state.steady is None:
        campaign.search.tell(evaluations)
    state.digest.add(line)
    state.since_improvement = 0 if improved else state.since_improvement + 1
    state.generation += 1
    state.finished = (
        state.digest.value(),
        Checkpoint(
            state.generation,
            kept_state(campaign.search),
            campaign.estimator.state(),
            state.hall.records,
            state.since_improvement,
        ),
    )
    seconds = time.monotonic() - began
    if time.monotonic() - state.saved_at > max(CHECKPOINT_EVERY_S, state.saving_s / CHECKPOINT_SHARE):
        _save(campaign, run, state)
    observer.generation(_progress(campaign, state, record, journalled is not None, seconds, batch, evaluations))
    undecided = campaign.config.executor.kind == "auto" and not campaign.picked
    if undecided and journalled is None and not closing:  # a replayed one is done before its time tells anything
        seconds -= CLOCK.seconds - compiling  # the next ones need not
        _pick_executor(campaign, seconds, campaign.generations - state.generation, observer)


def _progress(
    campaign: Campaign,
    state: _State,
    record: Line,
    replayed: bool,
    seconds: float,
    batch: CandidateBatch,
    evaluations: EvaluationBatch,
) -> Progress:
    """What is told of the generation that just ended."""
    counters = campaign.estimator.counters
    return Progress(
        state.generation - 1,
        campaign.generations,
        record,
        replayed,
        seconds,
        counters.asked,
        counters.distinct,
        counters.passes,
        counters.store_hits,
        state.since_improvement,
        campaign,
        batch,
        evaluations,
    )


def _records(
    campaign: Campaign, state: _State, batch: CandidateBatch, evaluations: EvaluationBatch
) -> list[dict[str, Any]]:
    """The best candidate's record, then those of the best others that may enter the hall."""
    return [
        candidate_record(batch, evaluations, campaign.space, row)
        for place, row in enumerate(evaluations.best(state.hall.size).tolist())
        if place == 0
        or state.hall.wants(
            float(evaluations.fitness[row]),
            int(evaluations.parts[row]),
            int(evaluations.cost[row]),
            evaluations.digest(row),
            batch.first_id + row,
        )
    ]


def _pick_executor(campaign: Campaign, seconds: float, left: int, observer: Observer) -> None:
    """After the first generation that this process evaluated, decide whether Ray would pay for those that are left.

    While it starts the search goes on here; the results are the same.
    """
    import os

    from evoquant.execution.rising import Rising

    where = campaign.config.executor
    workers = where.workers or os.cpu_count() or 1
    kind, why = auto_choice(seconds, left, workers)
    campaign.picked = f"{kind}: {why}"
    observer.message(f"executor {campaign.picked}")
    if kind == "ray":
        later = make_executor("ray", where.workers, where.address, None, where.need, where.runtime_env)
        campaign.executor = Rising(campaign.executor, later, observer.message)
        campaign.estimator.use(campaign.executor)


def _restore(campaign: Campaign, run: RunDir, lines: list[str], observer: Observer) -> _State:
    """From the checkpoint where it fits the journal, else from the start; what is journalled is replayed."""
    hall = Hall(
        campaign.config.finalists,
        earlier_wins=campaign.space is None,
        by_form=campaign.config.finalists_by_form,
    )
    journal = None if campaign.measured else Appender(run, JOURNAL)
    state = _State(hall, journal, saved_at=time.monotonic())
    if getattr(campaign.config.search, "in_flight", None) is not None:
        from evoquant.campaign.steady import steady_of

        state.steady = steady_of(campaign)
    # Measured generations are always replayed: each outcome is looked up, or measured again and compared.
    checkpoint = None if campaign.measured else load_checkpoint(run, campaign.config.hash(), lines)
    if checkpoint is not None:
        campaign.search.restore(checkpoint.search())
        campaign.estimator.restore(checkpoint.estimator)
        hall.restore(checkpoint.hall)
        state.generation = checkpoint.generations
        state.since_improvement = checkpoint.since_improvement
        for line in lines[: checkpoint.generations]:
            state.digest.add(line)
        state.finished = (state.digest.value(), checkpoint)
    if lines:
        observer.message(f"{len(lines)} generations are journalled; replaying from generation {state.generation}")
    return state


def _save(campaign: Campaign, run: RunDir, state: _State) -> None:
    """The checkpoint of the last whole generation, never ahead of what is durable of the journal."""
    began = time.monotonic()
    if state.journal is not None:
        state.journal.drain()
    if state.finished is not None:
        digest, checkpoint = state.finished
        save_checkpoint(run, campaign.config.hash(), digest, checkpoint)
    state.saved_at = time.monotonic()
    state.saving_s = state.saved_at - began


def _nobody(run: RunDir, state: _State) -> CampaignError:
    if state.journal is not None:
        state.journal.drain()
    return all_failed(run)


def _stop(campaign: Campaign, run: RunDir, state: _State) -> str | None:
    """Why the search ends here, or None."""
    stop, counters = campaign.config.stop, campaign.estimator.counters
    if campaign.search.done():
        return "the list is at its end"
    if campaign.space is None:
        return None
    if state.generation >= stop.generations:
        return f"{stop.generations} generations"
    if stop.stagnation is not None and state.since_improvement >= stop.stagnation:
        return f"no better fitness in {stop.stagnation} generations"
    if stop.evaluations is not None and counters.asked >= stop.evaluations:
        return f"{stop.evaluations} evaluations asked"
    if stop.passes is not None and counters.spent:
        return f"{counters.passes:g} of {stop.passes:g} passes spent; another candidate does not fit"
    champion = state.hall.records[0] if state.hall.records else None
    if champion is None and state.generation >= 3:
        raise _nobody(run, state)
    if stop.target is not None and champion is not None and champion["fitness"] >= stop.target:
        return f"fitness {stop.target:g} reached"
    return None


def _gate(campaign: Campaign, champion: Champion) -> dict[str, Any] | None:
    """What gate.json holds; None for campaigns on profiles."""
    if not campaign.measured:
        return None
    from evoquant.campaign.finals_measured import judge_of
    from evoquant.campaign.gate import run_gate

    judge = judge_of(campaign)
    return run_gate(judge, champion.genome.allocate(judge.problem), str(champion.genome.to_dict()["kind"]))


def _mismatch(campaign: Campaign, run: RunDir, generation: int) -> RunDirError:
    then = run.read(ENVIRONMENT) if run.has(ENVIRONMENT) else {}
    now = environment_record(inputs=campaign.inputs)
    return RunDirError(
        f"{run.path}: generation {generation} evaluates differently than its journal says. "
        f"Environment: {differences(then, now)} differs from environment.json. "
        f"Resume where it was started, or start a new run."
    )


def _log_timing(campaign: Campaign, run: RunDir, generation: int, seconds: float) -> None:
    record: dict[str, Any] = {
        "generation": generation,
        "seconds": round(seconds, 6),
        "executor": campaign.executor.name,
        "workers": campaign.executor.workers,
    }
    if campaign.measurer is not None:
        record["store_hits"] = campaign.measurer.store_hits
        record["messages"] = campaign.measurer.messages[-20:]
        campaign.measurer.messages.clear()
    run.append(TIMINGS, record, durable=False)


def _provenance(campaign: Campaign, state: _State, reason: str) -> dict[str, Any]:
    config, counters = campaign.config, campaign.estimator.counters
    record = environment_record()
    provenance: dict[str, Any] = {
        "campaign": config.name,
        "config_hash": config.hash(),
        "seed": config.seed,
        "generations": state.generation,
        "stopped": reason,
        "evaluations": {"asked": counters.asked, "distinct": counters.distinct},
        "menu": list(config.resolved_menu.names),
        "objective": config.objective.model_dump(mode="json"),
        "inputs": campaign.inputs,
        "evoquant": record["packages"]["evoquant"],
    }
    own = config.own_parts()
    if own:
        provenance["own"] = {key: part.model_dump(mode="json") for key, part in own.items()}
    if campaign.profile is not None:
        signals = sum(campaign.profile.passes.values())
        provenance["budget"] = {"signal_passes": signals, "search_passes": round(counters.passes - signals, 6)}
    return provenance
