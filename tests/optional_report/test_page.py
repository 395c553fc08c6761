import dataclasses
import functools
import html.parser
import json
import re
import shutil
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from evoquant.cli.commands import app
from evoquant.errors import InputError
from evoquant.report.data import load_run
from evoquant.report.figures import evenly, fitness_figure
from evoquant.report.figures_gate import gate_figure
from evoquant.report.figures_layers import MOST_BARS, layers_figure
from evoquant.report.page import page_html, run_figures
from evoquant.report.page_run import overrides_of
from evoquant.report.page_verdict import verdict_html
from evoquant.report.series import GateRow, LayerStrip, run_series

from .page_runs import ATTACK, MARKUP, hostile_run, small_run, unfinished

go = pytest.importorskip("plotly.graph_objects")


class Reader(html.parser.HTMLParser):
    """What a browser would find: elements, headings, script contents, text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.headings, self.ids = [], {}, [], []
        self.text, self._inside = [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.elements.append((tag, given))
        self._inside = given.get("id", "") if tag == "script" else self._inside
        if "id" in given:
            self.ids.append(given["id"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        self._inside = None if tag == "script" else self._inside

    def handle_data(self, data):
        if self._inside is not None:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + data
        else:
            self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def named(self, tag):
        return [given for name, given in self.elements if name == tag]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "rule": small_run(folder / "rule", "evolve", "search.population=30"),
        "tree": small_run(folder / "tree", "tree", "search.population=20"),
        "direct": small_run(folder / "direct", "level_switch"),
        "archive": small_run(folder / "archive", "map_elites"),
        "several": small_run(
            folder / "several", "evolve", "search.population=20", "models.train=[seed/train, family/cnn/0]"
        ),
        "replay": small_run(folder / "replay", "journey"),
    }
    return made | {"unfinished": unfinished(made["rule"], folder / "unfinished")}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return hostile_run(tmp_path_factory.mktemp("hostile") / "made")


@functools.cache
def read(path):
    return Reader(page_html(load_run(path)))


def drawn(figure, name):
    return next(trace for trace in figure.plot["data"] if trace.get("name") == name)


KINDS = ("rule", "tree", "direct", "archive", "several", "replay", "unfinished")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_has_a_page_in_order(runs, kind):
    page = read(runs[kind])
    sections = [given["id"] for given in page.named("section")]
    wanted = ["verdict", "fitness", "front", "layers", "heuristic", "why", "tables", "run", "reproduce"]
    assert sections == [name for name in wanted if kind != "unfinished" or name != "heuristic"]
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.ids) == len(set(page.ids))
    assert [len(page.named(tag)) for tag in ("header", "main", "footer", "title")] == [1, 1, 1, 1]
    for given in page.named("figure"):
        data = json.loads(page.scripts[f"{given['data-figure']}-data"])
        go.Figure({key: data[key] for key in ("data", "layout")})  # plotly itself knows every key and value
    for given in page.named("div"):
        if given.get("class") == "plot":
            assert given["role"] == "img"
            assert len(given["aria-label"]) > 60


def test_the_same_run_gives_the_same_bytes(runs, tmp_path):
    shutil.copytree(runs["tree"], tmp_path / "tree")
    assert page_html(load_run(runs["tree"])) == page_html(load_run(tmp_path / "tree"))


def test_the_page_loads_nothing(runs):
    page = read(runs["rule"])
    (policy,) = [given["content"] for given in page.named("meta") if given.get("http-equiv")]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert "unsafe-eval" not in policy
    for _, given in page.elements:
        assert not {"src", "srcset", "action", "data", "poster"} & set(given)
        assert given.get("href", "#").startswith("#")
        assert not any(key.startswith("on") for key in given)


def test_figures_hold_what_the_journal_says(runs):
    run = load_run(runs["rule"])
    figures = {figure.name: figure for figure in run_figures(run, run_series(run))}
    records = list(run.journal)
    best = drawn(figures["fitness"], "best so far")
    assert best["y"] == pytest.approx([record["champion"]["fitness"] for record in records], rel=1e-5)
    assert best["x"] == [record["generation"] for record in records]
    median = drawn(figures["fitness"], "median")
    assert median["y"] == pytest.approx([np.median(r["population"]["fitness"]) for r in records], rel=1e-5)
    everything, chosen = figures["front"].plot["data"][:2]
    sizes = [record["population"]["size"] for record in records]
    assert len(everything["x"]) == len(everything["y"]) == sum(sizes)
    assert figures["front"].slider["starts"] == [0, *np.cumsum(sizes).tolist()]
    assert chosen["y"] == everything["y"][-sizes[-1] :]
    fitness = sorted(value for record in records for value in record["population"]["fitness"])
    assert sorted(given[1] for given in everything["customdata"]) == pytest.approx(fitness, rel=1e-4)
    names = [trace["name"] for trace in figures["front"].plot["data"]]
    assert names == ["all candidates", "generation 4", "exact front", "uniform widths", "champion"]
    star = figures["front"].plot["data"][-1]
    assert star["x"] == pytest.approx([run.champion.scores["train"]["compression"]], rel=1e-5)
    assert star["y"] == pytest.approx([run.champion.scores["train"]["retention"]], rel=1e-5)
    strip = [trace for trace in figures["layers"].plot["data"] if "yaxis" not in trace]
    layers = sorted(place for trace in strip for place in trace["x"])
    assert layers == list(range(131))


def test_breakthroughs_come_with_their_ancestry(runs):
    run = load_run(runs["rule"])
    figure = fitness_figure(run_series(run))
    gains, before = [], None
    for record in run.journal:
        fitness = record["champion"]["fitness"]
        if before is None or fitness > before:
            gains.append(record)
        before = fitness
    assert len(gains) > 1
    assert len(figure.listed) == len(gains)
    for line, record in zip(figure.listed, gains, strict=True):
        assert line.startswith(f"Generation {record['generation']}: fitness {record['champion']['fitness']:.4f}")
        assert record["champion"]["operator"] in line
        for parent in record["champion"]["parents"]:
            assert f"#{parent}" in line


def test_verdict_says_what_the_champion_keeps_and_costs(runs):
    run = load_run(runs["rule"])
    page = read(runs["rule"])
    test = run.champion.scores["test"]
    assert f"{test['retention']:.2%}" in page.words
    assert f"{test['compression']:.3f}x" in page.words
    assert f"{test['share_of_optimum']:.2%}" in page.words
    assert run.champion.genome.text in page.words
    size = run_series(run).size
    assert f"{size.champion / 1e9:.4g} GB" in page.words
    assert f"FP32: {size.fp32 / 1e9:.4g} GB" in page.words
    assert "separable estimate" in page.words
    assert "seed 0" in page.words


def test_a_missed_floor_is_said_loudly(runs):
    run = load_run(runs["rule"])
    scores = {**run.champion.scores, "test": {**run.champion.scores["test"], "retention": 0.90}}
    worse = dataclasses.replace(run, champion=dataclasses.replace(run.champion, scores=scores))
    said = verdict_html(worse, run_series(run))
    assert '<p class="warning">It IS BELOW the cliff at 95% retention.' in said
    assert "IS BELOW" not in verdict_html(run, run_series(run))


def test_an_unfinished_run_says_so(runs):
    page = read(runs["unfinished"])
    assert "not finished" in page.words
    assert "3 of at most 5 generations" in page.words
    assert "evoquant resume unfinished" in page.words
    assert "Best so far" in page.words


def test_nothing_succeeded_and_the_page_says_so(runs, tmp_path):
    path = unfinished(runs["rule"], tmp_path / "failed")
    journal = path / "journal.jsonl"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    for record in records:
        size = record["population"]["size"]
        record |= {"champion": None, "best": None, "failures": {str(i): "not_finite" for i in range(size)}}
        record["population"]["fitness"] = [None] * size
        record["summary"]["fitness"] = None
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))
    page = read(path)
    assert "No candidate has succeeded yet" in page.words
    failed = sum(record["population"]["size"] for record in records)
    assert f"{failed} candidates failed" in page.words


def test_changed_files_end_in_one_message(runs, tmp_path):
    shutil.copytree(runs["several"], tmp_path / "run")
    champion = json.loads((tmp_path / "run/champion.json").read_text())
    champion["scores"]["train"]["per_model"] = [1]
    (tmp_path / "run/champion.json").write_text(json.dumps(champion))
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--html", str(tmp_path / "page.html")])
    assert isinstance(done.exception, InputError)
    assert "per_model" in str(done.exception)
    assert not (tmp_path / "page.html").exists()


def test_forms_that_print_and_forms_that_write_exclude_each_other(runs, tmp_path):
    done = CliRunner().invoke(app, ["report", str(runs["rule"]), "--json", "--html", str(tmp_path / "page.html")])
    assert isinstance(done.exception, InputError)
    assert not (tmp_path / "page.html").exists()


def test_gate_is_drawn_with_its_intervals():
    rows = (
        GateRow("champion", "rule", 3.0, 0.98, 4.0, 8.0, 0.0, None, "", False),
        GateRow("uniform INT8", "uniform", 2.0, 0.99, 3.9, 8.2, 1.0, (0.5, 1.6), "ahead", False),
        GateRow("greedy", "greedy", 3.1, 0.98, 4.0, 8.0, -0.1, (-0.4, 0.2), "tie", True),
    )
    figure = gate_figure(rows)
    go.Figure(figure.plot)
    beaten, tie = figure.plot["data"]
    assert (beaten["name"], beaten["x"], beaten["y"]) == ("beaten", [1.0], ["uniform INT8"])
    assert beaten["error_x"]["array"] == [0.6]
    assert beaten["error_x"]["arrayminus"] == [0.5]
    assert tie["y"] == ["greedy"]
    assert "beats 1, ties with 1, is beaten by 0. Recommended: greedy." in figure.finding
    assert gate_figure(rows[:1]) is None


def test_hostile_names_stay_text(hostile):
    text = page_html(load_run(hostile))
    page = Reader(text)
    assert "<script>alert" not in text
    assert MARKUP not in text
    assert not [given for tag, given in page.elements if tag == "img" or "onerror" in given]
    assert len(page.named("script")) == len(page.named("figure")) + 2
    assert ATTACK in page.words, "people still read the name as it is"
    layers = json.loads(page.scripts["layers-data"])
    hovers = [said for trace in layers["data"] for said in trace["customdata"]]
    assert hovers
    assert not any("<script" in said or "<img" in said for said in hovers)
    raw = text.split('id="layers-data">', 1)[1].split("</script>", 1)[0]
    assert not set("<>&") & set(raw)
    assert "\\u003c" in raw


def test_control_characters_are_shown_not_obeyed(runs, tmp_path):
    folder = tmp_path / "a\u202eb\x1b[2J"
    shutil.copytree(runs["rule"], folder)
    text = page_html(load_run(folder))
    assert "\u202e" not in text
    assert "\x1b" not in text.split("<script")[0]
    assert "a\\u202eb\\x1b[2J" in text


def strip_of(count):
    bits = np.array([4, 8] * count)[:count]
    return LayerStrip(
        "model",
        tuple(f"layer{i}" for i in range(count)),
        ("Linear",) * count,
        tuple(f"INT{b}" for b in bits),
        bits,
        bits.astype(float),
        np.full(count, 10),
        bits * 1.25,
        np.full(count, 1 / count),
        np.arange(count) / count,
        "gradient_sensitivity",
        None,
        None,
    )


@pytest.mark.parametrize("count", [1, 2, MOST_BARS, MOST_BARS + 1, 10_000])
def test_strip_of_any_length_shows_every_layer(count):
    figure = layers_figure(strip_of(count))
    go.Figure(figure.plot)
    traces = figure.plot["data"]
    widths = [trace for trace in traces if "yaxis" not in trace]
    size = drawn(figure, "size")
    assert len(size["x"]) == min(count, MOST_BARS)
    factor = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1}[figure.plot["layout"]["yaxis2"]["title"]["text"].split()[-1]]
    assert sum(size["y"]) * factor == pytest.approx(float(np.sum(strip_of(count).size_bytes)), rel=1e-4)
    if count > MOST_BARS:
        share = np.zeros(MOST_BARS)
        for trace in widths:
            share[trace["x"]] += trace["y"]
        assert share == pytest.approx(np.ones(MOST_BARS), abs=1e-5)
        assert f"{count:,} layers in {MOST_BARS} bars" in " ".join(figure.notes)
    else:
        assert sorted(place for trace in widths for place in trace["x"]) == list(range(count))
    assert len(figure.tables[-1].rows) == min(count, 1000)


def test_ten_thousand_generations_are_thinned_and_it_says_so(runs):
    series = run_series(load_run(runs["rule"]))
    count = 10_000
    curve = series.curve
    longer = {
        field.name: np.resize(getattr(curve, field.name), count)
        for field in dataclasses.fields(curve)
        if isinstance(getattr(curve, field.name), np.ndarray)
    }
    longer["generation"] = np.arange(count)
    long = dataclasses.replace(series, curve=dataclasses.replace(curve, **longer))
    figure = fitness_figure(long)
    best = drawn(figure, "best so far")
    assert len(best["x"]) < 1600
    assert (best["x"][0], best["x"][-1]) == (0, count - 1)
    assert {step.generation for step in curve.breakthroughs} <= set(best["x"])
    assert f"{len(best['x']):,} of 10,000 generations of the best so far are drawn" in " ".join(figure.notes)
    median = drawn(figure, "median")
    assert len(median["x"]) == 250
    assert median["y"][0] == pytest.approx(np.median(longer["median"][:40]), rel=1e-5)
    assert "medians of 40 generations at a time" in " ".join(figure.notes)
    assert evenly(5, 3) == [0, 2, 4]


def test_commands_repeat_the_run(runs, tmp_path):
    run = load_run(runs["rule"])
    overrides = overrides_of(run)
    assert sorted(overrides) == ["finalists=4", "search.population=30", "stop.generations=5"]
    page = read(runs["rule"])
    command = next(line for line in "".join(page.text).splitlines() if line.startswith("evoquant run"))
    words = command.replace("rule/config.yaml", str(runs["rule"] / "config.yaml")).split()[1:]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    done = CliRunner().invoke(app, [*words, "--executor", "local"])
    assert done.exit_code == 0
    assert (tmp_path / "again/journal.jsonl").read_bytes() == (runs["rule"] / "journal.jsonl").read_bytes()


def test_config_that_leads_elsewhere_is_not_offered(runs, tmp_path):
    shutil.copytree(runs["rule"], tmp_path / "rule")
    (tmp_path / "rule/config.yaml").write_text("name: [")
    run = load_run(tmp_path / "rule")
    assert overrides_of(run) is None
    assert "save `config` of resolved.json" in read(tmp_path / "rule").words


def test_damaged_side_files_do_not_stop_the_page(runs, tmp_path):
    shutil.copytree(runs["rule"], tmp_path / "rule")
    (tmp_path / "rule/timings.jsonl").write_text("[1]\nnonsense")
    (tmp_path / "rule/environment.json").write_text("[1, 2")
    assert "How it was run" in read(tmp_path / "rule").words


def test_command_writes_the_file_and_replaces_it(runs, tmp_path):
    file = tmp_path / "new/page.html"
    for _ in range(2):
        done = CliRunner().invoke(app, ["report", str(runs["rule"]), "--html", str(file)])
        assert (done.exit_code, done.stdout) == (0, "")
        assert done.stderr == f"wrote {file}\n"
        assert file.read_text().startswith("<!doctype html>")
    assert [found.name for found in file.parent.iterdir()] == ["page.html"]


def test_missing_library_names_the_extra(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(Exception, match=r"needs plotly, which is not installed: pip install 'evoquant\[report\]'"):
        page_html(load_run(runs["rule"]))
