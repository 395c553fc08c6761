import pytest

from evoquant.execution import RAY_START_S, auto_choice


@pytest.mark.parametrize(
    ("batch_seconds", "left", "cpus", "expected"),
    [
        (1.0, 100, 2, "ray"),
        (0.01, 100, 2, "local"),
        (0.0, 1000, 64, "local"),
        (1.0, 0, 64, "local"),
        (1000.0, 1000, 1, "local"),
        (RAY_START_S, 2, 2, "local"),  # saves exactly what the start costs
        (RAY_START_S, 3, 2, "ray"),
    ],
)
def test_ray_is_picked_where_it_saves_more_than_its_start(batch_seconds, left, cpus, expected):
    kind, reason = auto_choice(batch_seconds, left, cpus)
    assert kind == expected
    assert f"a batch takes {batch_seconds:.3g} s" in reason


def test_start_cost_is_an_argument():
    assert RAY_START_S > 0
    assert auto_choice(1.0, 9, 2, ray_start_s=100.0)[0] == "local"
    assert auto_choice(0.01, 9, 2, ray_start_s=0.0)[0] == "ray"


def test_one_worker_is_said_to_save_nothing():
    assert "one worker saves nothing" in auto_choice(9.0, 9, 1)[1]
