import pytest

from evoquant.campaign.journal import failures_of
from evoquant.errors import RunDirError


@pytest.mark.parametrize("failures", [{"bad": "raised:X"}, {"999": "raised:X"}, {"3": "raised:X"}, []])
def test_failures_that_fit_no_candidate_are_one_message(failures):
    line = {"generation": 2, "failures": failures, "measured": {"measurements": {}, "allocations": ["a"]}}
    with pytest.raises(RunDirError, match="generation 2 does not fit"):
        failures_of(line, first_id=10)
