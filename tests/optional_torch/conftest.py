"""What the tests of measured PyTorch networks share."""

import pytest


@pytest.fixture
def always(monkeypatch):
    """Look every call up, however little these small networks save by it."""
    from evoquant.models import torch_worth

    monkeypatch.setattr(torch_worth, "TRIAL", 10**9)


@pytest.fixture
def trusting(monkeypatch):
    """Remember calls of the modules of these tests, too, to see what holds without trust."""
    from evoquant.models import torch_reusable

    monkeypatch.setattr(torch_reusable, "TRUSTED", (*torch_reusable.TRUSTED, "tests"))
