"""`evoquant.profile`: of a model that a Python program holds, or one that is there already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.api.given import given_model, measurable, name_of
from evoquant.api.parts import rounder_of
from evoquant.api.result import Temporary
from evoquant.errors import InputError, quoted, suggestion
from evoquant.files import write_atomic
from evoquant.models.base import SIGNALS, SPLITS
from evoquant.models.own_rounding import rounded_by
from evoquant.profiles.builtin import any_profile
from evoquant.profiles.model import ModelProfile, profile_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx
    import torch

    from evoquant.models.arrays import Arrays
    from evoquant.quantization.protocol import Rounding

FEW = 8  # samples of the splits that no profile looks at
DEFAULT = tuple(name for name in SIGNALS if name != "hessian")


def profile(
    model: torch.nn.Module | onnx.ModelProto | str | Path | bytes,
    calibration: Any = None,
    *,
    metric: str | Callable[..., Any] | None = None,
    path: str | Path | None = None,
    menu: Sequence[str] | None = None,
    signals: Sequence[str] | None = None,
    seed: int = 0,
    name: str | None = None,
    tie_groups: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, str] | None = None,
    block: int = 512,
    batch: int = 128,
    cache: str | Path | None = None,
    rounding: Rounding | str | None = None,
) -> ModelProfile:
    """The profile of a model: what each layer is, and what quantizing it alone costs.

    All of `calibration` is measured, where `optimize` keeps a part of it for its gate. `evoquant.bound` takes what
    comes back, and campaigns its file.

    Args:
        model: as for `optimize`; or, without `calibration`, a profile's file, or a built-in name such as `seed/train`.
        calibration, metric, name, tie_groups, types, block, batch: as for `optimize`.
        path: a file to write it to, too, as JSON.
        menu: names of precisions; INT2, INT4 and INT8 per channel, FP16 and FP32 by default.
        signals: what to measure: loss (a pass for each layer and width), divergence, fisher, hessian,
            gradient_sensitivity, activation_range; by default all but hessian.
        seed: of the order of samples, and of what signals draw.
        cache: a folder to keep outcomes in for runs on the same data; by default they are thrown away.
        rounding: weights to codes, a function or its name, as for `optimize`; losses and costs are then of its codes.

    Raises:
        InputError: model, data and metric do not go together, there is no such signal or precision, or the file cannot
            be written.
        MissingExtraError: PyTorch, or onnxruntime for an ONNX model, is not installed.
        CampaignError: the FP32 model cannot be measured.
    """
    if calibration is None:
        if rounding is not None:
            raise InputError("rounding: is for a model with data; a profile that is there has no weights to round.")
        found = _there(model)
    else:
        _check_signals(signals)
        with measurable(model):
            splits = _splits(calibration, seed)
            shared: dict[str, Any] = {"tie_groups": tie_groups, "types": types, "block": block, "batch": batch}
            given = given_model(model, splits, (), metric, name=name_of(model, name), seed=seed, **shared)
            task = rounded_by(given.task, None if rounding is None else rounder_of(rounding))
            found = _measured(task, menu, signals, cache)
    if path is not None:
        write_atomic(Path(path), profile_to_json(found))
    return found


def _there(model: Any) -> ModelProfile:
    """A profile that is there already.

    Raises:
        InputError: it is not, or the model needs data.
    """
    named = isinstance(model, (str, Path))
    if not named or str(model).endswith(".onnx"):
        what = f"{model}" if named else f"a {type(model).__name__}"
        raise InputError(
            f"calibration: {what} is profiled on data; give (inputs, targets), inputs alone, or a loader of batches."
        )
    return any_profile(str(model))


def _check_signals(signals: Sequence[str] | None) -> None:
    if isinstance(signals, str):
        raise InputError(f"signals: is {quoted(signals)}; give a list: [{quoted(signals)}].")
    for one in signals or ():
        if one not in SIGNALS:
            raise InputError(f"signals: no signal is called {quoted(one)}.{suggestion(str(one), SIGNALS)}")


def _splits(calibration: Any, seed: int) -> dict[str, Arrays]:
    """All samples for the calibration split; a few of them stand for the others, which are never measured."""
    from evoquant.models.memory_data import in_drawn_order, read_samples

    whole = in_drawn_order(read_samples(calibration, "calibration"), seed, "calibration")
    few = {key: array[:FEW] for key, array in whole.items()}
    return {split: whole if split == "calibration" else few for split in SPLITS}


def _measured(task: Any, menu: Sequence[str] | None, signals: Sequence[str] | None, cache: Any) -> ModelProfile:
    from evoquant.campaign.build import make_executor
    from evoquant.campaign.build_measured import open_network
    from evoquant.campaign.score import MEASURED_MENU
    from evoquant.quantization.precision import Menu

    kept = Temporary()
    wanted = DEFAULT if signals is None else tuple(signals)
    chosen = Menu.parse([menu] if isinstance(menu, str) else menu or MEASURED_MENU)
    executor = make_executor("local", None, None)
    try:
        opened = open_network(task, chosen, wanted, Path(cache) if cache is not None else kept.path, executor)
        opened.store.close()
        return opened.profile
    finally:
        executor.close()
