"""Opening a file, whatever is in it, executes nothing, writes nowhere else and sends the terminal nothing."""

import base64
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evoquant import api
from evoquant.profiles.model import profile_to_json
from evoquant.store import FILE

CONFIGS = Path(__file__).parents[2] / "configs"
AUDITED = Path(__file__).with_name("audited.py")
LOCAL = ["executor.kind=local"]
CALL = "__import__('os').system('touch /tmp/evoquant-was-here')"
TAG = "!!python/object/apply:os.system ['touch /tmp/evoquant-was-here']"
STEERING = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\u202e\x9b31m [red]x[/red] <b>|`"
PATHS = "../../../../../../etc/passwd"
TEXTS = (CALL, TAG, STEERING, PATHS)


class Bomb:
    """Runs a command where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch /tmp/evoquant-was-here",)


def pickled():
    return pickle.dumps(Bomb())


def npz_of_objects(name="x"):
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **{name: np.array([Bomb()], dtype=object)})
    return stream.getvalue()


WHOLE = {"pickle": pickled(), "tag": TAG.encode(), "npz": npz_of_objects()}


def npz_bomb():
    """A few kilobytes that would be 64 GB."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + bytes(2**20))
    data = bytearray(stream.getvalue())
    where = data.rindex(b"PK\x01\x02") + 24
    data[where : where + 4] = (2**32 - 2).to_bytes(4, "little")
    return bytes(data)


def places(value, path=()):
    """The path of every value within plain data; of long lists the first two and the last."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from places(value[index], (*path, index))


def changed(value, path, text, as_key):
    """Plain data with `text` for the value at a path, or for its key."""
    if not path:
        return text
    copy = value.copy()
    if as_key and len(path) == 1 and isinstance(copy, dict):
        return {(text if key == path[0] else key): item for key, item in copy.items()}
    copy[path[0]] = changed(value[path[0]], path[1:], text, as_key)
    return copy


def mutations(text, limit, seed=0):
    """JSON with hostile text in one place; where there are more than `limit` places, some drawn with `seed`."""
    data = json.loads(text)
    every = [(path, as_key) for path in places(data) for as_key in (False, True)]
    rng = np.random.default_rng(seed)
    chosen = range(len(every)) if len(every) <= limit else sorted(rng.choice(len(every), limit, replace=False))
    for number in chosen:
        path, as_key = every[number]
        hostile = TEXTS[int(rng.integers(len(TEXTS)))]
        yield f"{'key' if as_key else 'value'} at {path}", json.dumps(changed(data, path, hostile, as_key))


def audited(folder, roots, warm, probes, secret="/nowhere", **environment):
    spec, answer = folder / "spec.json", folder / "answer.json"
    spec.write_text(json.dumps({"warm": warm, "probes": probes, "roots": [*map(str, roots)], "secret": str(secret)}))
    (folder / "tmp").mkdir(exist_ok=True)
    quiet = {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp"), "EVOQUANT_CACHE": str(roots[0] / "cache")}
    done = subprocess.run(
        [sys.executable, "-B", AUDITED, spec, answer],
        capture_output=True,
        text=True,
        env={**os.environ, **quiet, **environment},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(answer.read_text())
    assert len(found) == len(probes)
    for one in found:
        assert not one["events"], (one["label"], one["events"])
        assert not one["modules"], (one["label"], one["modules"])
        assert not one["crash"], (one["label"], one["crash"])
        assert one["code"] in (0, 1, 2), one
        spoken = one["said"] + one["shown"]
        assert all(c.isprintable() or c in "\n\t" for c in spoken), (one["label"], spoken)
    assert not Path("/tmp/evoquant-was-here").exists()
    return found


def probe(label, words, write=(), gone=()):
    files = {
        str(path): base64.b64encode(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")).decode()
        for path, data in dict(write).items()
    }
    return {"label": label, "words": [*map(str, words)], "write": files, "gone": [*map(str, gone)]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs: rules with an archive, and trees."""
    root = tmp_path_factory.mktemp("hostile").resolve() / "runs"
    small = [*LOCAL, "stop.generations=3"]
    api.run(CONFIGS / "map_elites.yaml", out=root / "rules", overrides=small)
    api.run(CONFIGS / "tree.yaml", out=root / "trees", overrides=[*small, "search.population=20"])
    return root


def commands(root, name):
    """File of a run → the commands that read it; those that need an unfinished run come with what to remove."""
    run = root / name
    ends = [run / "champion.json", run / "report.json"]
    report = [((), ["report", run]), ((), ["report", run, "--json"]), ((), ["report", run, "--markdown"])]
    resume = [(ends, ["resume", run, "--executor", "local"])]
    use = [((), ["apply", run, "seed/test"]), ((), ["apply", run, "seed/test", "--json"])]
    use += [((), ["export", run, "--to", to]) for to in ("json", "yaml", "python", "rust")]
    use += [((), ["export", run, "--to", "csv", "--profile", "seed/test"])]
    found = {
        "resolved.json": [*report, *resume, *use[-2:]],
        "champion.json": [*report[:1], *use, ((), ["resume", run])],
        "journal.jsonl": [*report, *resume],
        "checkpoint.json": resume,
        "environment.json": resume,
        "config.yaml": [*report[:1], *resume],
    }
    if name == "trees":
        del found["resolved.json"], found["environment.json"], found["config.yaml"]
    else:
        found["archive.json"] = [*report, ((), ["pick", run]), ((), ["pick", run, "-o", run / "picked.json"])]
    return found


def probes_of(read, limit):
    """What to warm up with, and the probes: each file damaged as a whole, then in single places for each command.

    Args:
        read: file → (files to remove, command) of all that read it.
        limit: places a command.
    """
    warm, probes = [], []
    for path, reading in read.items():
        content = path.read_bytes()
        kind = path.suffix
        first, rest = content, b""
        if kind == ".jsonl":
            first, line, rest = content.partition(b"\n")
            rest = line + rest
        for number, (gone, words) in enumerate(reading):
            warm.append([[*map(str, gone)], [*map(str, words)]])
            left = [one for one in gone if one != path]
            if number == 0:
                for label, whole in WHOLE.items():
                    probes.append(probe(f"{path.name}: {label}: {words}", words, {path: whole}, left))
            if kind in (".json", ".jsonl"):
                for label, text in mutations(first, limit, number):
                    name = f"{path.name}: {label}: {words}"
                    probes.append(probe(name, words, {path: text.encode("utf-8", "surrogatepass") + rest}, left))
    return warm, probes


HEARD = """
import os, pickle, socket, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import audited
watch = audited.Watch([sys.argv[2]], sys.argv[2] + "/secret")
watch.on = True
exec("1")
pickle.loads(b"cos\\ngetpid\\n.")
os.system("true")
open(sys.argv[2] + "/fine", "w").close()
open(sys.argv[2] + "/../outside", "w").close()
try:
    open(sys.argv[2] + "/secret")
except OSError:
    os.mkdir(sys.argv[2] + "/../folder")
watch.on = False
print(*[event.partition(" ")[0] for event in watch.events])
"""


def test_the_hook_hears_all_that_it_should(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    done = subprocess.run([sys.executable, "-c", HEARD, AUDITED, root], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["compile", "exec", "pickle.find_class", "os.system", "open", "open", "os.mkdir"]


LIMITS = [1, pytest.param(40, marks=pytest.mark.long)]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", ["rules", "trees"])
def test_run_directories(runs, tmp_path, record, name, limit):
    read = {runs / name / file: reading for file, reading in commands(runs, name).items()}
    found = audited(tmp_path, [runs], *probes_of(read, limit))
    record("hostile files", f"run directory of {name}", tried=len(found), held=len(found))


# ---------------------------------------------------------------- a real network: ONNX, recipes, other tools' files


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """An ONNX file with its data, a measured run of it, its recipe, and allocations of it."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    root = tmp_path_factory.mktemp("network").resolve() / "network"
    root.mkdir()
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), name) for name in "ab"]
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes.append(helper.make_node("MatMul", ["r", "b"], ["y"]))
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8])] for name in "xy"]
    graph = helper.make_graph(nodes, "g", *ends, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, root / "m.onnx")
    np.savez(root / "d.npz", allow_pickle=False, x=rng.standard_normal((40, 8)).astype(np.float32))
    task = "task: {kind: onnx, model: m.onnx, data: d.npz, metric: agreement, block: 10, batch: 10}"
    search = "search: {kind: genetic, population: 8}\nstop: {generations: 2}\ngenome: {kind: direct}"
    text = f"{task}\nmenu: [INT8-channel, FP16, FP32]\n{search}\nexecutor: {{kind: local}}\ncache: {root / 'cache'}\n"
    (root / "c.yaml").write_text(text)
    api.run(root / "c.yaml", out=root / "run")
    api.deploy(root / "run", "recipe", root / "r.json")
    profile = json.loads((root / "run" / "profile.json").read_text())
    (root / "p.json").write_text(profile_to_json(api.profile("seed/test")))
    names = [layer["name"] for layer in profile["layers"]]
    (root / "w.json").write_text(json.dumps(dict.fromkeys(names, "INT8-channel")))
    (root / "w.csv").write_text("layer,width\n" + "".join(f"{name},FP16\n" for name in names))
    return root


def on_network(root):
    """File → the commands that read it."""
    named = ["--onnx", root / "m.onnx", "--data", root / "d.npz", "--agreement"]
    run, recipe = root / "run", root / "r.json"
    ends = [run / "champion.json", run / "report.json"]
    resume = (ends, ["resume", run])
    export = ((), ["export", recipe, "--to", "onnx", "-o", root / "out.onnx", *named])
    lint = ((), ["lint", recipe, "--for", "onnx"])
    whole = ((), ["lint", run, "--for", "openvino"])
    report = ((), ["report", run])
    score = [((), ["score", root / name, *named]) for name in ("w.json", "w.csv")]
    use = [((), [word, root / "p.json"]) for word in ("profile", "bound")]
    return {
        root / "m.onnx": [score[0], export, whole],
        root / "d.npz": [score[0], export],
        root / "w.json": [score[0]],
        root / "w.csv": [score[1]],
        root / "p.json": use,
        recipe: [lint, export],
        root / "r.safetensors": [lint, export],
        run / "gate.json": [report, whole, ((), ["export", run, "--to", "csv"])],
        run / "profile.json": [whole],
        run / "journal.jsonl": [report, resume],
        run / "resolved.json": [whole, resume],
        root / "cache" / FILE: [resume],
    }


@pytest.mark.parametrize("limit", LIMITS)
def test_a_network_and_what_is_made_of_it(network, tmp_path, record, limit):
    read = {path: reading for path, reading in on_network(network).items() if path.exists()}
    assert len(read) == len(on_network(network))
    found = audited(tmp_path, [network], *probes_of(read, limit))
    record("hostile files", "an ONNX file, data, recipe, allocations, outcomes", tried=len(found), held=len(found))


WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
FOREIGN = {
    "config.json": {
        "dtype": "bfloat16",
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"targets": ["Linear", "re:a.*"], "weights": WEIGHTS}},
            "ignore": ["re:.*b"],
        },
    },
    "quant_cfg.json": {"quant_cfg": [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}}]},
    "hf_quant_config.json": {"quantization": {"quant_algo": "W8A8_SQ_PER_CHANNEL", "exclude_modules": ["b"]}},
}
GGUF = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") + (1).to_bytes(8, "little")


@pytest.mark.parametrize("limit", [3, pytest.param(200, marks=pytest.mark.long)])
def test_recipes_of_other_tools(network, tmp_path, record, limit):
    named = ["--onnx", network / "m.onnx", "--data", network / "d.npz", "--agreement"]
    probes = []
    for name, content in FOREIGN.items():
        words = ["score", network / name, *named]
        texts = {"as it is": json.dumps(content), **WHOLE}
        texts |= dict(mutations(json.dumps(content), limit))
        probes += [probe(f"{name}: {label}", words, {network / name: text}) for label, text in texts.items()]
    for number, text in enumerate((CALL, TAG, STEERING, PATHS)):
        raw = text.encode()
        data = GGUF + len(raw).to_bytes(8, "little") + raw + (8).to_bytes(4, "little") + pickled()
        place = network / f"{number}.gguf"
        probes.append(probe(f"gguf {number}", ["score", place, *named], {place: data}))
    warm = [[[], [*map(str, ["score", network / "w.json", *named])]]]
    found = audited(tmp_path, [network], warm, probes)
    record("hostile files", "recipes of other tools", tried=len(found), held=len(found))
