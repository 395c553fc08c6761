"""Documents with inserted figures."""

import json

import pytest

from evoquant.errors import InputError
from evoquant.report.figures_table import Catalogue
from evoquant.report.inserted import render_documents, rendered


@pytest.fixture
def root(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    rows = [
        {"model": f"m{seed}", "seed": seed, "share": share, "evaluations": 200_000}
        for seed, share in enumerate((0.99969, 0.9996, 0.999999))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "results/hypervolume.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def source(root, text, name="README"):
    path = root / f"docs/{name}.in.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_figures_come_from_the_rows(root):
    path = source(root, "At least {{ hypervolume.least_share }} with {{hypervolume.evaluations}}.\n")
    assert rendered(path, Catalogue(root / "results")) == "At least 99.96% with 200,000.\n"


def test_a_document_is_written_once(root):
    source(root, "{{ hypervolume.least_share }}\n")
    source(root, "no figures\n", "method")
    assert render_documents(root) == [root / "README.md", root / "docs/method.md"]
    assert (root / "README.md").read_text(encoding="utf-8") == "99.96%\n"
    assert render_documents(root) == []


def test_code_is_left_as_it_is(root):
    text = "```yaml\na: {{ hypervolume.least_share }}\n```\n\n    {{ nothing }}\n"
    assert rendered(source(root, text), Catalogue(root / "results")) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n{{ hypervolume.least_sharr }}\n", r"README\.in\.md: line 2: no figure .*least_share"),
        ("{{ hypervolumes.x }}\n", r"line 1: no figure is called 'hypervolumes\.x'.*Did you mean.*hypervolume"),
        ("{{ table: nothing }}\n", r"line 1: no table is called 'nothing'; known: .*transfer"),
        ("see {{ table: transfer }}\n", r"line 1: a table stands on a line of its own"),
        ("{{ hypervolume.least_share }\n", r"line 1: a mark is wrong"),
        ("{{ __import__('os') }}\n", r"line 1: a mark is wrong"),
    ],
)
def test_a_wrong_mark_names_its_line(root, text, message):
    with pytest.raises(InputError, match=message):
        rendered(source(root, text), Catalogue(root / "results"))


def test_damaged_rows_are_named(root):
    (root / "results/hypervolume.jsonl").write_text('{"share": 1}\n[1]\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"hypervolume\.jsonl: line 2 is no JSON object"):
        rendered(source(root, "{{ hypervolume.least_share }}\n"), Catalogue(root / "results"))
