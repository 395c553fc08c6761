"""`evoquant.profile` of a module in memory."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import evoquant
from evoquant.errors import InputError
from tests.optional_torch.networks import Images, seeded


@pytest.fixture(scope="module")
def images():
    return seeded(Images()), torch.from_numpy(np.random.default_rng(0).standard_normal((40, 2, 8, 8), np.float32))


def test_a_module_is_profiled_on_all_samples_written_and_bounded(images, tmp_path):
    network, x = images
    before = network.training
    with torch.inference_mode():
        found = evoquant.profile(network, x, path=tmp_path / "p.json", signals=["loss", "fisher"])
    assert network.training is before
    assert found.name == "Images" and found.passes["loss"] > len(found.layers)
    assert all(set(layer.loss) == set(layer.fisher) >= {"INT4-channel", "FP32"} for layer in found.layers)
    assert (
        evoquant.profile(tmp_path / "p.json")
        == found
        == evoquant.profile(network, [(x[:20],), (x[20:],)], signals=["loss", "fisher"])
    )
    bound = evoquant.bound(found)
    assert bound == evoquant.bound(tmp_path / "p.json") and bound["model"] == "Images"
    assert evoquant.profile(network, x, signals=[], menu=["INT8-channel", "FP32"], name="mine").name == "mine"


def test_a_name_is_still_a_profile_that_is_there(tmp_path):
    assert evoquant.profile("seed/train", path=tmp_path / "seed.json") == evoquant.profile(str(tmp_path / "seed.json"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"signals": ["fischer"]}, "signals: no signal is called 'fischer'. Did you mean 'fisher'?"),
        ({"signals": "fisher"}, r"signals: is 'fisher'; give a list"),
        ({"menu": ["INT4"]}, "INT4 is nominal"),
        ({"metric": "accuracy"}, "accuracy needs targets"),
        ({"calibration": None}, "calibration: a Images is profiled on data; give"),
        ({"calibration": []}, "calibration: "),
    ],
)
def test_a_wrong_argument_is_one_message(images, options, said):
    network, x = images
    with pytest.raises(InputError, match=said):
        evoquant.profile(network, **{"calibration": x, **options})
