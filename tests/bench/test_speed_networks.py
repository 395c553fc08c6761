"""What a search asks of real networks, with and without copies, and that other outcomes would be noticed."""

import numpy as np
import pytest

from evoquant.bench.speed_networks import Asked, _check
from evoquant.errors import CampaignError
from evoquant.models.base import Failed, Request


def request(width, block=0):
    return Request((width, "FP16"), "calibration", block)


def test_copies_reach_the_network_once_and_neighbours_follow_one_another():
    first = [request("INT8-channel"), request("FP16"), request("INT8-channel"), request("FP16", 1)]
    asked = Asked(3, [first, [request("FP16"), request("INT4-channel"), request("INT4-channel")]])
    assert asked.distinct(10) == [
        [request("FP16"), request("INT8-channel"), request("FP16", 1)],
        [request("INT4-channel")],
    ]
    assert asked.distinct(2) == [[request("FP16"), request("INT8-channel")], []]


def test_outcomes_that_differ_are_noticed():
    zeros = np.zeros((2, 2), dtype=np.float32)
    _check("it", [zeros, Failed("not_finite", "here")], [zeros.copy(), Failed("not_finite", "")])
    for other in (-zeros, Failed("not_finite", "")):
        with pytest.raises(CampaignError, match="it: an outcome differs"):
            _check("it", [zeros], [other])
