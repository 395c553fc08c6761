import pytest

from evoquant.campaign.config import MAX_MODELS, config_from_dict
from evoquant.errors import ConfigError, ProfileError
from evoquant.profiles.builtin import builtin_profile, expand_names
from evoquant.profiles.families import family_profile
from evoquant.profiles.seed_suite import seed_profile


def test_names():
    assert builtin_profile("seed-additive/valid") is seed_profile("valid", "additive")
    assert builtin_profile("family/unet/5") is family_profile("unet", 5)
    assert builtin_profile("family/unet/5..5") is family_profile("unet", 5)
    assert builtin_profile("family/unet/5").name == "family/unet/5"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("family/cmn/3", "no family of models is called 'cmn'. Did you mean 'cnn'"),
        ("family//3", "no family of models is called ''"),
        ("family/cnn", "no built-in profile is called 'family/cnn'. Did you mean 'family/cnn/0'"),
        ("family/cnn/", r"write family/cnn/INDEX, or family/cnn/FIRST\.\.LAST"),
        ("family/cnn/-1", "write family/cnn/INDEX"),
        ("family/cnn/07", "write family/cnn/INDEX"),
        ("family/cnn/٣", "write family/cnn/INDEX"),
        ("family/cnn/3/4", "write family/cnn/INDEX"),
        ("family/cnn/1..", "write family/cnn/INDEX"),
        ("family/cnn/1..2..3", "write family/cnn/INDEX"),
        ("family/cnn/1000000", "numbered from 0 to 999999"),
        ("family/cnn/4..2", r"this range is empty; write family/cnn/2\.\.4"),
        ("family/cnn/2..4", r"names 3 models; give one of them, such as family/cnn/2"),
    ],
)
def test_wrong_names_say_the_remedy(name, fault):
    with pytest.raises(ProfileError, match=fault) as raised:
        builtin_profile(name)
    assert "\n" not in str(raised.value)


def test_indices_of_the_function_are_checked_too():
    with pytest.raises(ProfileError, match="no family"):
        family_profile("rnn", 0)
    with pytest.raises(ProfileError, match="from 0 to 999999"):
        family_profile("cnn", -1)


def test_ranges_stand_for_their_models():
    names = expand_names(["seed/train", "family/cnn/8..11", "own.json", "family/unet/0"], 7)
    assert names == ["seed/train", *(f"family/cnn/{i}" for i in range(8, 12)), "own.json", "family/unet/0"]
    with pytest.raises(ProfileError, match="family/unet/0 brings the list above 6 models"):
        expand_names(["seed/train", "family/cnn/8..11", "own.json", "family/unet/0"], 6)
    with pytest.raises(ProfileError, match="above 256 models"):
        expand_names(["family/cnn/0..999999"], 256)


def config(**models):
    return config_from_dict({"name": "x", "models": models}, "x.yaml")


def test_a_campaign_lists_the_models_of_a_range():
    short = config(train=["family/cnn/0..2"], valid=["family/unet/1"])
    long = config(train=[f"family/cnn/{i}" for i in range(3)], valid=["family/unet/1"])
    assert short.to_dict()["models"]["train"] == ["family/cnn/0", "family/cnn/1", "family/cnn/2"]
    assert short.hash() == long.hash()
    assert config_from_dict(short.to_dict(), "again").hash() == short.hash()


def test_a_campaign_refuses_wrong_ranges_in_one_line():
    for models, fault in [
        ({"train": ["family/cnn/4..2"]}, r"^x\.yaml: models\.train: family/cnn/4\.\.2: this range is empty"),
        ({"valid": ["family/cnm/0..2"]}, r"^x\.yaml: models\.valid: .*Did you mean 'cnn'"),
        ({"test": [f"family/cnn/0..{MAX_MODELS}"]}, r"^x\.yaml: models\.test: .* above 256 models"),
        ({"train": []}, r"^x\.yaml: models\.train: .*at least 1 item"),
    ]:
        with pytest.raises(ConfigError, match=fault) as raised:
            config(**models)
        assert "\n" not in str(raised.value)
    assert len(config(train=[f"family/cnn/1..{MAX_MODELS}"]).models.train) == MAX_MODELS
