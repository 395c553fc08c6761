import numpy as np

from evoquant.genomes.base import digest_of
from evoquant.search.map_elites import MapElitesSearch, MapElitesSettings

SETTINGS = MapElitesSettings(batch=60, bins=4, compression=(1.0, 16.0), parts=3)


def test_every_cell_holds_the_best_seen(rules, drive):
    search = MapElitesSearch(rules, seed=5, settings=SETTINGS)
    best = {}
    for batch, evaluations in drive(search, 8):
        for row in range(len(batch)):
            bits = evaluations.effective_bits[row, 0]
            column = int(np.clip(np.floor(np.log2(32.0 / bits) + 1e-12), 0, 3))  # bins of 1–2, 2–4, 4–8, 8–16
            parts = int(evaluations.parts[row])
            genome = rules.decode(batch.genes[row])
            key = (
                -evaluations.fitness[row],
                parts,
                int(evaluations.cost[row]),
                digest_of(genome),
            )
            cell = (min(parts, 3), column)
            best[cell] = min(best.get(cell, (np.inf,)), key)
    expected = sorted((key[1], key[0], key[3]) for key in best.values())
    digests = [digest_of(rules.decode(row)) for row in search.archive()]
    assert sorted(digests) == sorted(digest for _, _, digest in expected)
    assert len(digests) > 6
    assert rules.parts(search.archive()).tolist() == [parts for parts, _, _ in expected]


def test_the_archive_goes_from_the_simplest_and_there_from_the_best(rules, drive):
    search = MapElitesSearch(rules, seed=5, settings=SETTINGS)
    seen = drive(search, 6)
    fitness = {row.tobytes(): f for batch, e in seen for row, f in zip(batch.genes, e.fitness, strict=True)}
    rows = search.archive()
    order = [(int(rules.parts(row[None])[0]), -fitness[row.tobytes()]) for row in rows]
    assert order == sorted(order)


def test_beyond_the_limits_counts_to_the_last_bins(rules):
    search = MapElitesSearch(rules, seed=0, settings=SETTINGS)
    compression = np.array([0.5, 1.0, 1.99, 2.0, 15.9, 16.0, 99.0])
    cells = search._cell(compression, np.array([0, 0, 0, 0, 0, 0, 7]))
    assert cells.tolist() == [0, 0, 0, 1, 3, 3, 3 * 4 + 3]


def test_the_first_generation_has_its_own_size_and_start(rules, evaluate):
    from evoquant.genomes.strategies import strategy_rule

    settings = MapElitesSettings(batch=20, initial=50)
    search = MapElitesSearch(rules, seed=0, settings=settings, start=[strategy_rule("all_fp16")])
    first = search.ask()
    assert len(first) == 50 and first.operators[:2] == ("start", "random")
    search.tell(evaluate(rules, first))
    assert len(search.ask()) == 20


def test_failures_never_become_elites(rules, survives_failures):
    survives_failures(MapElitesSearch(rules, seed=3, settings=SETTINGS))


def test_cells_are_filled_more_and_more(rules, drive):
    search = MapElitesSearch(rules, seed=5, settings=SETTINGS)
    filled = []
    for _ in range(8):
        drive(search, 1)
        filled.append(len(search.archive()))
    assert filled == sorted(filled) and filled[-1] > filled[0]
