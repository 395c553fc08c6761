from evoquant.bench.scaling import driver_at, simulation_rows
from evoquant.bench.simulation import Costs
from evoquant.report.scaling import scaling_tables, seconds


def rows():
    counts = {workers: Costs(start_s=4.0, driver_s=0.001, generation_s=0.1, candidate_s=0.001) for workers in (2, 64)}
    return [
        {"part": "cost", "what": "start of Ray", "value": 4.0, "unit": "s"},
        {"part": "cost", "what": "spread", "value": 0.123, "unit": "of the mean"},
        {"part": "driver", "workers": 1000, "seconds": 0.0021},
        {
            "part": "efficiency",
            "item_s": 0.1,
            "workers": 2,
            "batching": "sized",
            "batches": 8,
            "efficiency": 0.97,
        },
        {
            "part": "validation",
            "mode": "steady",
            "item_s": 0.1,
            "population": 25,
            "generations": 2,
            "simulated_s": 1.02,
            "measured_s": 1.0,
        },
        *simulation_rows(20, counts, [0.9, 1.0, 1.1]),
    ]


def test_every_row_is_in_a_table():
    costs, efficiency, validation, simulated = scaling_tables(rows())
    assert [row[1] for row in costs.rows] == ["4 s", "12.3% of the mean", "2.1 ms"]
    assert efficiency.rows == [("100 ms", "2", "sized", "8", "97.0%")]
    assert validation.rows[0][-1] == "+2.0%"
    assert simulated.columns[2:] == ("2 workers", "64 workers", "Saturates", "Largest loss at 64")
    assert len(simulated.rows) == 6
    slow = next(row for row in simulated.rows if row[:2] == ("10 s", "generational"))
    assert slow[-2] == "at 64: too few candidates"
    assert all(len(row) == len(simulated.columns) for row in simulated.rows)
    assert "Simulated: 20 candidates" in simulated.to_markdown()


def test_simulated_rows_are_the_same_each_time():
    assert rows() == rows()


def test_units_of_seconds():
    assert [seconds(value) for value in (12.3456, 0.1, 0.00123, 4.5e-6)] == ["12.3 s", "100 ms", "1.23 ms", "4.5 us"]


def test_the_driver_s_time_between_measured_counts_is_linear():
    assert driver_at(33, {2: 0.001, 64: 0.002, 1000: 0.01}) == 0.0015
    assert driver_at(2000, {2: 0.001, 64: 0.002}) == 0.002
