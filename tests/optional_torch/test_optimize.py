"""`evoquant.optimize` on a module in memory: a small 1-D convolution that reads a frequency, trained in a second."""

import copy
import importlib.util
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import evoquant
from evoquant.api.result import Allocation
from evoquant.campaign.build_measured import bare_profile
from evoquant.cli import main
from evoquant.errors import InputError, Interrupted
from evoquant.models.code import code_digest, compiled_text
from evoquant.models.torch import Measurer
from evoquant.models.torch_data import call_on_tensors, input_tensors
from evoquant.models.torch_task import language_model
from evoquant.models.torch_threads import one_thread
from evoquant.quantization.precision import Menu
from evoquant.report.compare import compare
from evoquant.report.compare_notes import notes_of
from evoquant.testing.interrupt import StopAfter
from tests.optional_torch.networks import Everything, seeded

BUDGET = {"budget": 16, "floor": 0.95, "seed": 0}


class Wave(torch.nn.Module):
    """(n, 1, 32) samples of a sine → (n, 1) its frequency."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv1d(1, 6, 5, padding=2)
        self.second = torch.nn.Conv1d(6, 8, 5, padding=2)
        self.norm = torch.nn.BatchNorm1d(8)
        self.drop = torch.nn.Dropout(0.1)
        self.head = torch.nn.Linear(8 * 8, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.second(torch.relu(self.first(x)))))
        return self.head(self.drop(torch.nn.functional.max_pool1d(x, 4).flatten(1)))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    frequency = rng.uniform(1, 5, (400, 1))
    waves = np.sin(2 * np.pi * frequency * np.linspace(0, 1, 32)) + 0.05 * rng.standard_normal((400, 32))
    return torch.tensor(waves[:, None], dtype=torch.float32), torch.tensor(frequency, dtype=torch.float32)


@pytest.fixture(scope="module")
def wave(data):
    x, y = data
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Wave()
        steps = torch.optim.Adam(network.parameters(), 2e-2)
        for _ in range(60):
            steps.zero_grad()
            ((network(x) - y) ** 2).mean().backward()
            steps.step()
    steps.zero_grad()
    return network


@pytest.fixture(scope="module")
def result(wave, data, tmp_path_factory):
    return evoquant.optimize(wave, data, run_dir=tmp_path_factory.mktemp("run") / "wave", **BUDGET)


def journal(path):
    return (path / "journal.jsonl").read_bytes()


def message(*arguments, **options):
    with pytest.raises(InputError) as raised:
        evoquant.optimize(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---- the result -----------------------------------------------------------------------------------------------------


def test_what_comes_back(result, wave):
    assert list(result.allocation) == ["first", "second", "norm", "head"]
    assert result.scores["test"]["metric"]["name"] == "r2"
    low, high = result.scores["test"]["interval"]
    assert low <= result.scores["test"]["retention"] <= high
    assert result.samples == {"calibration": 200, "selection": 60, "gate": 60, "test": 80}
    assert result.drawn == ("selection", "test")
    text = str(result)
    for said in (result.verdict, "calibration 200", "selection and test drawn from the calibration data", "The gate"):
        assert said in text
    assert all(f"{width}" in str(result.allocation) for width in result.allocation.values())


def test_the_given_module_stays_as_it_is(wave, data):
    before = copy.deepcopy(wave.state_dict())
    wave.train()
    evoquant.optimize(wave, data, **{**BUDGET, "budget": 10})
    assert wave.training and wave.drop.training
    assert all(parameter.requires_grad for parameter in wave.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in wave.state_dict().items())


@pytest.mark.parametrize("ungated", [False, True])
def test_apply_computes_what_was_measured(result, wave, data, ungated):
    before = copy.deepcopy(wave.state_dict())
    task = result._task
    champion = result.champion if ungated else result.recommended
    widths = [dict(champion.genome.widths)[layer] for layer in task.layers]
    assert len(set(widths) - {"FP32"}) >= 1
    measurer = Measurer(task.network, task.found, task.data, None, block=task.block, batch=task.batch)
    tensors = input_tensors(task.data["test"], slice(0, 50))
    for made in (result.apply(ungated=ungated), result.apply(wave, ungated=ungated)):
        with one_thread(), torch.no_grad():
            ours = call_on_tensors(made, tensors)
            with measurer.quantized(widths):
                assert torch.equal(ours, call_on_tensors(task.network, tensors))
            assert not torch.equal(ours, call_on_tensors(task.network, tensors))
    assert not made.training
    assert all(torch.equal(before[name], tensor) for name, tensor in wave.state_dict().items())


def test_apply_refuses_another_network(result):
    with pytest.raises(InputError, match=r"no parameter 'first\.weight' of layer 'first'"):
        result.apply(torch.nn.Linear(3, 3))
    other = Wave()
    other.head = torch.nn.Linear(64, 2)
    with pytest.raises(InputError, match=r"layer 'head' has shape \(2, 64\), the searched one \(1, 64\)"):
        result.apply(other)


def test_a_run_that_is_loaded_is_applied_to_the_module_that_is_given(result, wave, data):
    loaded = evoquant.load(result.path)
    assert dict(loaded.allocation) == dict(result.allocation) and str(loaded) == str(result)
    with torch.no_grad():
        assert torch.equal(loaded.apply(wave)(data[0]), result.apply()(data[0]))
    with pytest.raises(InputError, match=r"in the memory of a program; give it: \.apply\(model\)"):
        loaded.apply()
    with pytest.raises(InputError, match="no parameter 'first' of layer 'first'"):
        loaded.apply(torch.nn.Linear(3, 3))
    with pytest.raises(InputError, match=r"call evoquant\.optimize there again"):
        loaded.export("onnx", "x.onnx")


def test_names_of_layers_lead_to_their_parameters():
    from evoquant.models.torch_memory import layers_by_name

    network = seeded(Everything()).eval()
    task = language_model(
        network, **dict.fromkeys(("calibration", "selection", "test"), torch.arange(64).view(8, 8) % 20)
    )
    profile = bare_profile(task, Menu.parse(["INT8-channel", "INT8-channel-a8", "FP32"]))
    found = layers_by_name(network, profile, ["FP32"] * len(task.layers))
    assert [layer.parameter for layer in found] == [layer.parameter for layer in task.found]
    with pytest.raises(InputError, match=r"'embed' is INT8-channel-a8, whose activations"):
        layers_by_name(network, profile, ["INT8-channel-a8"] * len(task.layers))


def test_export_to_onnx_computes_the_same(result, data, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    file = tmp_path / "wave.onnx"
    result.export("onnx", file)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    x = data[0][:20]
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, result.apply()(x).numpy(), atol=2e-4)
    assert result.path.exists()


def test_save_report_plot(result, tmp_path):
    saved = result.save(tmp_path / "saved")
    assert journal(saved) == journal(result.path)
    assert not (saved / "cache").exists()
    with pytest.raises(InputError, match="is there already"):
        result.save(saved)
    pytest.importorskip("plotly")
    page = result.report(tmp_path / "page.html").read_text()
    assert "evoquant.optimize(model, calibration" in page
    pytest.importorskip("matplotlib")
    figures = result.plot(tmp_path / "plots", kind="svg")
    assert sorted(f"{name}.svg" for name in figures) == sorted(file.name for file in (tmp_path / "plots").iterdir())
    assert figures._repr_html_().count("<img") == len(figures)
    with pytest.raises(InputError, match="kind is 'pdf'"):
        result.plot(kind="pdf")


def test_names_are_escaped_in_html(wave, data):
    rows = (("<script>alert(1)</script>", "Linear", 3, "INT8-channel", 8.5),)
    html = Allocation("<b>", rows, ("<i>",))._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html and "<b>" not in html and "<i>" not in html


def test_a_hostile_name_of_a_layer_is_text(data, wave):
    network = torch.nn.Sequential()
    network.add_module("<img src=x onerror=alert(1)>$\\frac{", wave)  # of HTML, and of matplotlib's formulas
    network.add_module("plain", torch.nn.Linear(1, 1, bias=False))
    network.plain.weight.data[:] = 1
    found = evoquant.optimize(network, data, **{**BUDGET, "budget": 10})
    html = found._repr_html_()
    assert "<img" not in html and "&lt;img src=x" in html
    if importlib.util.find_spec("matplotlib"):
        figures = found.plot()
        assert figures and figures._repr_html_().startswith('<img src="data:image/png;base64,')
    network = torch.nn.Sequential()
    network.add_module("\x1b[2J", wave)
    assert "the layer '\\x1b[2J.first' has characters that cannot be printed" in message(network, data, **BUDGET)


# ---- the same call --------------------------------------------------------------------------------------------------


def test_the_same_call_writes_the_same_journal_and_a_finished_run_is_read(result, wave, data, tmp_path):
    x, y = data
    batches = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 400, 32)]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64, shuffle=True)
    for number, given in enumerate((batches[::-1], loader)):  # whatever the order of the samples
        again = evoquant.optimize(wave, given, run_dir=tmp_path / str(number), **BUDGET)
        assert journal(again.path) == journal(result.path)
    layerwise = evoquant.optimize(wave, data, run_dir=tmp_path / "layerwise", quantized_cache=0, **BUDGET)
    assert journal(layerwise.path) == journal(result.path)
    before = {file.name: file.stat().st_mtime_ns for file in result.path.iterdir()}
    read = evoquant.optimize(wave, data, run_dir=result.path, quantized_cache="1MB", **BUDGET)  # no part of the call
    assert dict(read.allocation) == dict(result.allocation)
    assert {file.name: file.stat().st_mtime_ns for file in result.path.iterdir()} == before


def test_an_interrupted_run_goes_on(result, wave, data, tmp_path):
    place = tmp_path / "cut"
    with pytest.raises(Interrupted, match=r"interrupted after 2 generations; the same call with run_dir=.*cut goes on"):
        evoquant.optimize(wave, data, run_dir=place, observer=StopAfter(2), **BUDGET)
    assert not (place / "champion.json").exists()
    assert journal(place) != journal(result.path)
    evoquant.optimize(wave, data, run_dir=place, **BUDGET)
    assert journal(place) == journal(result.path)


def test_another_model_other_data_other_arguments_are_refused(result, wave, data):
    x, y = data
    other = copy.deepcopy(wave)
    other.head.bias.data += 1
    before = journal(result.path)
    options = {**BUDGET, "run_dir": result.path}
    assert "the model (weights or architecture): sha256" in message(other, data, **options)
    assert "the data: sha256" in message(wave, (x + 1, y), **options)
    assert "budget: 16.0 then, 30.0 now" in message(wave, data, **{**options, "budget": 30})
    assert "floor: 0.95 then, 0.9 now" in message(wave, data, **{**options, "floor": 0.9})
    assert "metric" in message(wave, data, metric=absolute, **options)
    assert journal(result.path) == before


@pytest.mark.parametrize("words", [["resume"], ["export", "--to", "onnx", "-o", "x.onnx"], ["verify", "--to", "onnx"]])
def test_the_command_line_says_what_to_do_instead(result, tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    place = result.save(tmp_path / "saved")
    (place / "champion.json").unlink() if words == ["resume"] else None
    monkeypatch.setattr("sys.argv", ["evoquant", words[0], str(place), *words[1:]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "evoquant.optimize" in error and "run_dir=" in error and "Traceback" not in error


def test_the_command_line_reports_it(result, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evoquant", "report", str(result.path), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["finished"] is True


# ---- other data and metrics -----------------------------------------------------------------------------------------


def absolute(outputs, targets):
    """The error of each sample, of which less is better."""
    return np.abs(outputs - targets).reshape(len(outputs), -1).mean(axis=1) + 0.01


absolute.lower_is_better = True


def test_a_metric_of_ones_own(wave, data):
    found = evoquant.optimize(wave, data, metric=absolute, **{**BUDGET, "floor": 0.5})
    assert found.scores["test"]["metric"]["name"] == "absolute"
    figures = found.scores["test"]["metric"]
    assert found.scores["test"]["retention"] == pytest.approx(figures["fp32"] / figures["quantized"])


def test_inputs_alone_are_compared_with_the_fp32_outputs(wave, data):
    found = evoquant.optimize(wave, data[0], **BUDGET)
    metric = found.scores["test"]["metric"]
    assert metric["name"] == "r2" and metric["fp32"] == 1.0


def test_tokens_alone_predict_the_next(wave):
    class Next(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(7, 6)
            self.out = torch.nn.Linear(6, 7)

        def forward(self, tokens):
            return self.out(self.embed(tokens))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokens, network = torch.randint(0, 7, (120, 5)), Next()
    found = evoquant.optimize(network, tokens, **BUDGET)
    assert found.scores["test"]["metric"]["name"] == "perplexity"


def test_calls_with_other_seeds_are_compared_and_other_data_is_not(wave, data, tmp_path):
    x, y = data
    for seed in (0, 1):
        evoquant.optimize(wave, data, **{**BUDGET, "seed": seed}, run_dir=tmp_path / f"same-{seed}")
    made = compare([tmp_path / "same-0", tmp_path / "same-1"])
    assert [len(group.results) for group in made.groups] == [2]
    assert any("Each seed drew its own splits from the same samples" in note for note in notes_of(made))
    evoquant.optimize(wave, (x[1:], y[1:]), **BUDGET, run_dir=tmp_path / "other")
    with pytest.raises(InputError, match="the data's digest is"):
        compare([tmp_path / "same-1", tmp_path / "other"])


@pytest.mark.parametrize("genome", ["rule", "tree"])
def test_a_heuristic_instead(wave, data, genome):
    found = evoquant.optimize(wave, data, genome=genome, **{**BUDGET, "budget": 14})
    assert found.champion.genome.to_dict()["kind"] == genome
    assert list(found.allocation) == ["first", "second", "norm", "head"]


def test_splits_that_are_given(wave, data):
    x, y = data
    parts = [(x[i], y[i]) for i in (slice(0, 200), slice(200, 300), slice(300, 400))]
    found = evoquant.optimize(wave, parts[0], selection=parts[1], test=parts[2], **BUDGET)
    assert found.samples == {"calibration": 200, "selection": 50, "gate": 50, "test": 100} and found.drawn == ()


def test_classes_and_a_mode_without_gradients(data):
    x, y = data
    labels = (y[:, 0] > 3).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(32, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )
    with torch.inference_mode():
        found = evoquant.optimize(network, {"input": x, "labels": labels}, **BUDGET)
    assert found.scores["test"]["metric"]["name"] == "accuracy"


# ---- a warm start ---------------------------------------------------------------------------------------------------


def test_a_tuned_model_begins_with_the_earlier_allocations(result, wave, data, tmp_path):
    tuned = copy.deepcopy(wave)
    tuned.head.weight.data *= 1.01
    found = evoquant.optimize(tuned, data, start_from=result, run_dir=tmp_path / "tuned", **BUDGET)
    first = json.loads(journal(found.path).splitlines()[0])
    assert set(first["population"]["operators"]) == {"start"}
    menu = ["INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"]
    champion = [menu.index(width) for _, width in result.champion.genome.widths]
    assert first["population"]["genes"][0] == champion
    again = evoquant.optimize(tuned, data, start_from=result.path, run_dir=found.path, **BUDGET)
    assert dict(again.allocation) == dict(found.allocation)
    assert "start_from" in message(tuned, data, run_dir=found.path, **BUDGET)


def test_a_search_of_trees_begins_with_an_earlier_tree(wave, data):
    options = {**BUDGET, "budget": 14, "genome": "tree"}
    earlier = evoquant.optimize(wave, data, **options)
    tuned = copy.deepcopy(wave)
    tuned.head.weight.data *= 1.01
    found = evoquant.optimize(tuned, data, start_from=earlier, **options)
    first = json.loads(journal(found.path).splitlines()[0])["population"]
    assert first["operators"][0] == "start" and set(first["operators"][1:]) != {"start"}
    config = json.loads((found.path / "resolved.json").read_text())["config"]
    assert config["search"]["start"] == [earlier.champion.genome.to_dict()]
    assert "genomes are of kind tree" in message(tuned, data, start_from=earlier, **{**options, "genome": "rule"})


def test_a_warm_start_names_layers_that_differ(result, data):
    class Longer(Wave):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(64, 3)
            self.last = torch.nn.Linear(3, 1)

        def forward(self, x):
            return self.last(super().forward(x))

    said = message(Longer(), data, start_from=result, **BUDGET)
    assert "'last' is new" in said and "'head' is (3, 64), was (1, 64)" in said
    assert "no such run directory" in message(Wave(), data, start_from="nowhere", **BUDGET)
    assert "genomes are of kind direct" in message(Wave(), data, start_from=result, genome="tree", **BUDGET)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"floor": 95},
            "floor: is 95; it is the share of the FP32 metric to keep, between 0 and 1; for 95% write",
        ),
        ({"floor": float("nan")}, "floor: is nan"),
        ({"floor": True}, "floor: is True"),
        ({"budget": 0}, "budget: is 0"),
        ({"budget": "many"}, "budget: is 'many'"),
        ({"budget": 1}, "evoquant.optimize: budget: 1 is less than the 9 that the signals (7)"),
        ({"seed": -1}, "seed: is -1"),
        ({"batch": 0}, "batch: is 0"),
        ({"quantized_cache": "lots"}, "quantized_cache: 'lots' is no size; write it as 256MB, 1GiB, or in bytes"),
        ({"genome": "dirct"}, "Did you mean 'direct'?"),
        ({"executor": "rai"}, "executor: is 'rai'; it is local, ray, auto"),
        ({"workers": 0}, "workers: is 0"),
        ({"metric": "acuracy"}, "metric: unknown metric 'acuracy'. Did you mean 'accuracy'?"),
        ({"metric": 3}, "metric: is a int; give a name"),
        ({"metric": "accuracy"}, "accuracy needs classes"),
        ({"metric": lambda outputs, targets: 1.0}, "return one score a sample"),
        ({"metric": lambda outputs, targets: 1 / 0}, "raised ZeroDivisionError"),
        ({"menu": ["INT3", "FP99"]}, "evoquant.optimize: menu"),
        ({"menu": ["INT4", "FP32"]}, "INT4"),
        ({"objective": {"kind": "feasible"}}, "objective.kind: unknown kind 'feasible'"),
        ({"deploy_to": ["onyx"]}, "Did you mean 'onnx'?"),
        ({"name": "../x"}, "evoquant.optimize: name"),
        ({"test": torch.zeros(9, 1, 32)}, "test: holds inputs, calibration inputs, targets"),
    ],
)
def test_a_wrong_argument_is_one_message(wave, data, options, said):
    assert said in message(wave, data, **{**BUDGET, **options})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda x, y: (x[:0], y[:0]), "calibration: has no samples"),
        (lambda x, y: [], "calibration: "),
        (lambda x, y: iter(()), "calibration: has no samples"),
        (lambda x, y: None, "calibration: has no samples"),
        (lambda x, y: (x[:5], y[:5]), "calibration: has 5 samples"),
        (lambda x, y: (x, y[:3]), "calibration: arrays of one split have one row a sample"),
        (lambda x, y: (x * float("nan"), y), "calibration: inputs: holds values that are not finite"),
        (lambda x, y: (x, y * float("inf")), "calibration: targets: holds values that are not finite"),
        (lambda x, y: (x, y, y), "calibration: holds 3 parts; give (inputs, targets)"),
        (lambda x, y: "data.npz", "calibration: inputs: is of type"),
        (lambda x, y: (x[:, :, :7], y), "the model does not take the calibration inputs: RuntimeError"),
        (lambda x, y: (x, y * 0), "same value on every sample"),
        (lambda x, y: (x, -y), "evoquant.optimize: metric: r2 of the FP32 network on the calibration data is -"),
        (lambda x, y: [(x[:9], y[:9]), (x[:9, :, :9], y[:9]), (x, y)], "calibration: batch 1 holds"),
        (lambda x, y: torch.utils.data.TensorDataset(x, y), "put it in a DataLoader"),
        (lambda x, y: (1 / 0 for _ in "a"), "calibration: its loader raised ZeroDivisionError"),
    ],
)
def test_wrong_data_is_one_message(wave, data, make, said):
    assert said in message(wave, make(*data), **BUDGET)


def test_what_is_no_model():
    assert message(3, torch.zeros(20, 3), **BUDGET).startswith("model: is a int; give a torch.nn.Module or the path")


# ---- what was typed into a notebook ---------------------------------------------------------------------------------


def test_code_without_a_file_is_told_by_what_it_does():
    """Two versions of a class or a function that have the same name, and no source file."""

    def typed(body):
        made = {"__name__": "notebook"}
        exec(
            f"class Net:\n    def forward(self, x):\n        return {body}\n\n\ndef score(o, t):\n    return {body}",
            made,
        )
        return made

    first, again, other = (code_digests(typed(body)) for body in ("x + 1", "x + 1", "x + 2"))
    assert first == again
    assert first[0] != other[0] and first[1] != other[1]

    helped = [{"__name__": "notebook"} for _ in range(3)]
    for made, value in zip(helped, (1, 1, 2), strict=True):
        exec(f"def part(x):\n    return {value}\n\n\ndef score(o, t):\n    return part(o)", made)
    one, same, changed = (compiled_text(made["score"]) for made in helped)
    assert one == same != changed

    def holding(value):
        return lambda outputs, targets: value * outputs

    assert compiled_text(holding(2)) == compiled_text(holding(2)) != compiled_text(holding(3))


def code_digests(made):
    return code_digest([made["Net"]]), code_digest([made["score"]])
