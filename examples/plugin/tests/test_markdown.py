from evoquant_example_plugin import Markdown

from evoquant.testing import check_exporter
from evoquant.testing.exporters import example_subject


def test_markdown_keeps_the_protocol():
    check_exporter(Markdown)


def test_every_layer_has_a_line():
    subject = example_subject("allocation")
    text = Markdown().export(subject)
    assert "- train: fitness 2.5, retention 0.96" in text
    assert "| linear | Linear | 512,000 |" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(subject.widths)


def test_names_from_a_hostile_file_stay_names():
    text = Markdown().export(example_subject("allocation", hostile=True))
    assert "<script>" not in text and "\x1b" not in text
    table = text[text.index("| layer") :]
    assert all(line.replace("\\|", "").count("|") == 5 for line in table.splitlines())
