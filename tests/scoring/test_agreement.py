"""Which signals agree with the measured ones."""

import numpy as np
import pytest

from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.scoring.agreement import signal_agreement, spearman


def test_spearman_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, 30).astype(float), rng.random(30)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman(np.ones(5), np.arange(5.0)) is None


def test_each_signal_beside_the_measured_ones_over_units_and_widths():
    def layer(name, factor, **more):
        divergence = {"INT4-channel": 4.0 * factor, "INT8-channel": 1.0 * factor, "FP32": 0.0}
        return LayerProfile(
            name,
            "Linear",
            (4, 4),
            0.5,
            divergence=divergence,
            fisher=divergence,
            hessian={key: -value + 9 for key, value in divergence.items()},
            weight_error=divergence,
            weight_std=1.0,
            **more,
        )

    profile = ModelProfile("m", (layer("a", 0.1), layer("b", 1.5), layer("c", 0.3)), passes={"fisher": 0.6})
    rows = {row.signal: row for row in signal_agreement(profile)}
    assert list(rows) == ["divergence", "fisher", "hessian", "weight_error", "sqnr"]
    assert rows["fisher"].divergence == pytest.approx(1) and rows["hessian"].divergence == pytest.approx(-1)
    assert rows["sqnr"].divergence == pytest.approx(1)
    assert rows["fisher"].loss is None
    assert [rows[name].passes for name in ("fisher", "hessian", "sqnr")] == [0.6, None, 0.0]


def test_a_width_that_no_layer_may_take_does_not_count():
    def layer(name, good, bad):
        known = {"INT4-channel": good, "INT2-channel": bad}
        return LayerProfile(
            name,
            "Linear",
            (4, 4),
            0.5,
            divergence=known,
            fisher={**known, "INT2-channel": 0.0},
            allowed=("INT4-channel",),
        )

    profile = ModelProfile("m", (layer("a", 1.0, 5.0), layer("b", 2.0, 7.0)))
    (_, fisher) = signal_agreement(profile)
    assert fisher.divergence == pytest.approx(1)


def test_a_profile_without_signals_has_no_rows():
    assert signal_agreement(ModelProfile("m", (LayerProfile("a", "Linear", (4, 4), 0.5),))) == ()
