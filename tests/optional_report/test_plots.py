"""Plots read back: the data of their axes, the text of their SVG, the same bytes twice."""

import dataclasses
import hashlib
import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from evoquant import api
from evoquant.cli import main
from evoquant.errors import InputError, MissingExtraError
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_to_json
from evoquant.report.data import load_run
from evoquant.report.plots import drawn, run_figures, write_plots
from evoquant.report.series import GateRow, run_series

matplotlib = pytest.importorskip("matplotlib")

from evoquant.report.plots_curves import gate_figure
from evoquant.report.plots_model import layers_figure
from evoquant.report.plots_style import cut, picture, printed, style

MENU = ("INT4-channel", "INT8-channel", "FP16", "FP32")
HOSTILE = ("$\\frac{a}{b}$", "</text><script>alert(1)</script>", "a" * 500, "日本語", "&amp;x", "$")


def profile(names):
    layers = tuple(
        LayerProfile(
            name=name,
            type="Linear",
            shape=(8 * (n % 3 + 1), 16),
            position=n / max(len(names) - 1, 1),
            gradient_sensitivity=10.0 ** -(n % 5),
            loss={"INT4-channel": 0.03, "INT8-channel": 0.004 * (n % 4 + 1), "FP16": 0.0005, "FP32": 0.0},
        )
        for n, name in enumerate(names)
    )
    return ModelProfile("net $x^2$", layers)


def campaign(folder, names, **more):
    (folder / "net.json").write_text(profile_to_json(profile(names)), "utf-8")
    config = {
        "name": "plots",
        "menu": list(MENU),
        "models": {"train": ["net.json"], "valid": [], "test": []},
        "search": {"kind": "genetic", "population": 12, "elites": 2},
        "stop": {"generations": 5},
    }
    (folder / "plots.yaml").write_text(json.dumps(config | more))
    api.run(folder / "plots.yaml", out=folder / "run", overrides=["executor.kind=local"])
    return folder / "run"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return campaign(tmp_path_factory.mktemp("hostile"), HOSTILE)


@pytest.fixture(scope="module")
def shown(hostile):
    """The series of a run, and its figures."""
    series = run_series(load_run(hostile))
    with style():
        return series, run_figures(series)


def texts(svg):
    """The words of an SVG, which is thereby parsed."""
    return [
        "".join(part.itertext()).strip() for part in ET.fromstring(svg).iter() if part.tag.rpartition("}")[2] == "text"
    ]


def line(axes, label):
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return [np.asarray(values, dtype=float).tolist() for values in found.get_data()]


def test_fitness_has_the_curve(shown):
    series, figures = shown
    (axes,) = figures["fitness"].axes
    curve = series.curve
    assert line(axes, "best so far") == [curve.generation.tolist(), curve.champion.tolist()]
    assert line(axes, "median") == [curve.generation.tolist(), curve.median.tolist()]
    steps = curve.breakthroughs
    assert line(axes, "breakthrough") == [[step.generation for step in steps], [step.after for step in steps]]
    assert line(axes, "below: retention under 0.95")[1] == pytest.approx([0.095, 0.095])
    (band,) = axes.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
    assert set(zip(curve.generation.tolist(), curve.lower.tolist(), strict=True)) <= corners
    assert set(zip(curve.generation.tolist(), curve.upper.tolist(), strict=True)) <= corners
    assert axes.get_title() == ""


def test_the_key_tells_of_the_numbered_breakthroughs(shown):
    series, figures = shown
    numbers = [text.get_text() for text in figures["fitness"].axes[0].texts]
    gained = sorted(series.curve.breakthroughs[1:], key=lambda step: -step.gain)
    assert numbers, "this run improves"
    said = figures["fitness"].get_supxlabel().split("\n")
    assert [text.split()[0] for text in said] == numbers
    assert any(text.split()[2] == f"{gained[0].generation}:" and f"+{gained[0].gain:.3g}" in text for text in said)
    assert all(len(text) <= 70 for text in said)


def test_front_has_candidates_front_widths_and_champion(shown):
    series, figures = shown
    points, front = series.points, series.front
    for axes in figures["front"].axes:
        assert line(axes, "exact front") == [front.compression.tolist(), front.retention.tolist()]
        x, y = line(axes, "candidates")
        assert (x, y) == (points.compression[points.feasible].tolist(), points.retention[points.feasible].tolist())
        assert len(line(axes, "below the cliff")[0]) == int((~points.feasible).sum())
        assert line(axes, "champion") == [[series.marks[0].compression], [series.marks[0].retention]]
        squares = [one for one in axes.get_lines() if one.get_marker() == "s"]
        found = {(float(one.get_xdata()[0]), float(one.get_ydata()[0])) for one in squares}
        assert found == {(mark.compression, mark.retention) for mark in series.marks[1:]}
        assert line(axes, "cliff at 0.95")[1] == [0.95, 0.95]
    whole, near = figures["front"].axes
    assert near.get_ylim()[0] == pytest.approx(0.9)
    assert near.get_xlim()[0] < series.marks[0].compression < near.get_xlim()[1]
    assert whole.get_xlim()[0] < 1.0 < max(points.compression) < whole.get_xlim()[1]


def test_layers_have_bits_shares_and_signals(shown):
    series, figures = shown
    strip = series.strip
    bits, share, sensitivity, loss = figures["layers"].axes
    stacked = np.zeros(len(strip))
    for patch in bits.patches:
        values, _, base = patch.get_data()
        stacked = stacked + (values - base)
    assert stacked.tolist() == pytest.approx(strip.effective_bits.tolist())
    assert {patch.get_label() for patch in bits.patches} == set(strip.width)
    assert share.patches[0].get_data().values.tolist() == pytest.approx((strip.share * 100).tolist())
    assert sensitivity.patches[0].get_data().values.tolist() == pytest.approx(strip.sensitivity.tolist())
    assert sensitivity.get_yscale() == "log"
    shown = np.asarray(loss.patches[0].get_data().values)
    floor = strip.loss[strip.loss > 0].min() / 2 if loss.get_yscale() == "log" else -1.0
    assert shown.tolist() == pytest.approx(np.maximum(strip.loss, floor).tolist())


def test_ten_thousand_layers_are_columns_of_neighbours(shown):
    series, _ = shown
    n = 10_000
    rng = np.random.default_rng(0)
    wide = rng.random(n) < 0.5
    sizes = rng.integers(1, 100, n).astype(float)
    parameters = np.full(n, 8)
    many = dataclasses.replace(
        series.strip,
        name=tuple(f"layer {i}" for i in range(n)),
        type=("Linear",) * n,
        width=tuple("FP16" if w else "INT4-channel" for w in wide),
        code_bits=np.where(wide, 16, 4),
        effective_bits=sizes * 8 / parameters,
        parameters=parameters,
        size_bytes=sizes,
        share=sizes / sizes.sum(),
        sensitivity=rng.random(n),
        loss=np.full(n, 1e-5),
    )
    with style():
        figure = layers_figure(many)
        svg = picture(figure, "svg")
    bits, share, sensitivity, _ = figure.axes
    values, edges, _ = share.patches[0].get_data()
    assert len(values) == 350
    assert values.sum() == pytest.approx(100)
    stacked = sum(patch.get_data().values - patch.get_data().baseline for patch in bits.patches)
    part = slice(int(edges[3]), int(edges[4]))
    assert stacked[3] == pytest.approx(sizes[part].sum() * 8 / parameters[part].sum())
    assert sensitivity.patches[0].get_data().values[3] == many.sensitivity[part].max()
    assert len(svg) < 500_000
    assert "layer, in order of execution (350 columns for 10,000 layers)" in texts(svg)


GATE = (
    GateRow("champion", "rule", 2.0, 0.97, 3.0, 8.0, 0.0, None, "", False),
    GateRow("uniform INT8", "uniform", 1.9, 0.96, 2.9, 8.1, 0.1, (-0.2, 0.3), "tie", True),
    GateRow("greedy", "greedy", 2.5, 0.99, 3.1, 7.9, -0.5, (-0.7, -0.2), "behind", False),
)


def test_gate_has_the_intervals():
    with style():
        figure = gate_figure(GATE)
        words = texts(picture(figure, "svg"))
    axes = figure.axes[0]
    spans = [one for one in axes.get_lines() if len(set(one.get_ydata())) == 1 and len(one.get_xdata()) == 2]
    found = {one.get_ydata()[0]: tuple(one.get_xdata()) for one in spans}
    assert found == {1: (-0.2, 0.3), 2: (-0.7, -0.2)}
    for word in ("uniform INT8 (recommended)", "champion behind", "a tie", "97.00%", "3.10×", "2.5"):
        assert word in words
    assert "champion ahead" not in words


@pytest.fixture(scope="module")
def pictures(hostile):
    """File name → bytes, of both kinds."""
    series = run_series(load_run(hostile))
    before = dict(matplotlib.rcParams.copy())
    made = {kind: drawn(series, kind) for kind in ("png", "svg")}
    assert dict(matplotlib.rcParams.copy()) == before, "matplotlib is left as it was"
    return made["png"] | made["svg"]


def test_svg_is_xml_with_the_labels_as_text(pictures):
    assert set(pictures) == {f"{name}.{kind}" for name in ("fitness", "front", "layers") for kind in ("png", "svg")}
    words = {name: texts(data) for name, data in pictures.items() if name.endswith(".svg")}
    assert "generation" in words["fitness.svg"]
    assert "retention of the FP32 metric" in words["front.svg"]
    assert any(text.startswith("model: ") and text.endswith("net.json") for text in words["layers.svg"])
    assert "compression (FP32 size / size)" in words["front.svg"]
    for name in HOSTILE:
        assert printed(name, 24) in words["layers.svg"], "as it is: no formula, no markup"
    for name in words:
        assert b"<script" not in pictures[name]
        assert b"<dc:date>" not in pictures[name]


def test_another_process_with_other_settings_gives_the_same_bytes(hostile, pictures):
    code = """if True:
        import hashlib, sys
        from pathlib import Path
        import matplotlib
        from evoquant.report.data import load_run
        from evoquant.report.plots import write_plots
        matplotlib.rcParams.update({"text.usetex": True, "font.size": 20, "axes.grid": True, "svg.hashsalt": "x"})
        for path in write_plots(load_run(Path(sys.argv[1])), {kind: Path(sys.argv[2]) for kind in ("svg", "png")}):
            print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        """
    done = subprocess.run(
        [sys.executable, "-c", code, str(hostile), str(hostile.parent / "plots")],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found = dict(row.split() for row in done.stdout.splitlines())
    assert found == {name: hashlib.sha256(data).hexdigest() for name, data in pictures.items()}


def test_one_layer_and_one_generation(tmp_path):
    run = campaign(tmp_path, ["only"], stop={"generations": 1})
    series = run_series(load_run(run))
    with style():
        figures = run_figures(series)
        assert line(figures["fitness"].axes[0], "best so far")[0] == [0]
        assert figures["fitness"].axes[0].get_xlim() == (-0.5, 0.5)
        assert "only" in texts(picture(figures["layers"], "svg"))
        assert picture(figures["front"], "png").startswith(b"\x89PNG")


def test_a_run_whose_candidates_all_failed(hostile):
    run = load_run(hostile)
    record = run.journal[0]
    size = record["population"]["size"]
    record |= {"champion": None, "best": None, "summary": {"fitness": None}}
    record["failures"] = {str(i): "not_finite" for i in range(size)}
    record["population"]["fitness"] = [None] * size
    series = run_series(dataclasses.replace(run, journal=[record], champion=None))
    assert (len(series.points), series.points.failed, series.strip) == (0, size, None)
    assert set(drawn(series, "svg")) == {"fitness.svg", "front.svg"}


def test_a_budget_is_a_line(tmp_path):
    run = campaign(tmp_path, ["a", "b", "c"], objective={"kind": "budget", "effective_bits": 9.0})
    series = run_series(load_run(run))
    assert series.goal.compression == pytest.approx(32 / 9)
    with style():
        axes = run_figures(series)["front"].axes[0]
    assert line(axes, "budget, 9 bits a weight")[0] == pytest.approx([32 / 9] * 2)
    assert math.isfinite(axes.get_ylim()[0])


def test_command_writes_both_kinds(hostile, pictures, tmp_path, capsys, monkeypatch):
    folders = {"png": tmp_path / "new" / "png", "svg": tmp_path / "svg"}
    options = [str(part) for kind, folder in folders.items() for part in (f"--{kind}", folder)]
    monkeypatch.setattr(sys, "argv", ["evoquant", "report", str(hostile), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr()
    assert said.out == ""
    for name, data in pictures.items():
        path = folders[name[-3:]] / name
        assert path.read_bytes() == data
        assert f"wrote {path}\n" in said.err


def test_bad_folders_and_a_missing_package_are_one_message(hostile, tmp_path, monkeypatch):
    run = load_run(hostile)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--svg .*file: is a file; name a folder"):
        write_plots(run, {"svg": Path(tmp_path / "file")})
    with pytest.raises(InputError, match="cannot be written"):
        write_plots(run, {"svg": Path(tmp_path / "file" / "below")})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"a plot needs matplotlib.*evoquant\[report\]"):
        write_plots(run, {"svg": tmp_path / "plots"})


def test_long_names_are_cut():
    assert printed("short") == "short"
    assert printed("model.layers.0.self_attention.query.weight", 21) == "model.laye…ery.weight"
    assert len(printed("x" * 10**6, 24)) == 24
    assert printed("two\nlines\x1b") == "two lines\\x1b"
    assert cut("one two three", 8) == "one two…"
