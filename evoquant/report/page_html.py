"""HTML that cannot be broken out of: text is escaped wherever it enters, and only this module makes markup."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import TYPE_CHECKING, Any

from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evoquant.report.table import Table

_VOID = ("br", "input", "meta")


class Safe(str):
    """Markup that `element` made; every other string is text."""

    __slots__ = ()


def text(value: str) -> Safe:
    """Text for the page: `<` is shown as it is, what cannot be printed as an escape."""
    return Safe(html.escape(plain(value), quote=True))


def element(tag: str, *children: str | Safe, **attributes: str | int | bool | None) -> Safe:
    """A tag around children; those that are no `Safe` are escaped.

    Args:
        tag: its name.
        children: text or markup.
        attributes: `class_` for `class`, `aria_label` for `aria-label`; True for one without a value, None for none.
    """
    named = []
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is True:
            named.append(f" {name}")
        elif value is not None and value is not False:
            named.append(f' {name}="{text(str(value))}"')
    start = f"<{tag}{''.join(named)}>"
    return Safe(start) if tag in _VOID else Safe(f"{start}{joined(children)}</{tag}>")


def joined(children: Iterable[str | Safe]) -> Safe:
    """All of them, one after the other; what is no `Safe` is escaped."""
    return Safe("".join(child if isinstance(child, Safe) else text(child) for child in children))


def section(name: str, title: str, *children: str | Safe) -> Safe:
    """A landmark with a heading of the second level."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *children, id=name, aria_labelledby=f"{name}-title")


def paragraphs(lines: Iterable[str], kind: str | None = None) -> Safe:
    """One paragraph a line."""
    return joined([element("p", line, class_=kind) for line in lines])


def table_html(table: Table) -> Safe:
    """A table with its caption in a box that scrolls where it is wider than the page; notes below."""
    if not table.rows:
        return element("div", element("h3", table.title), paragraphs(table.notes, "note"))
    head = element("tr", *(_cell("th", name, i in table.numeric, "col") for i, name in enumerate(table.columns)))
    rows = [
        element(
            "tr",
            *(
                _cell("th" if i == 0 else "td", cell, i in table.numeric, "row" if i == 0 else None)
                for i, cell in enumerate(row)
            ),
        )
        for row in table.rows
    ]
    drawn = element(
        "table", element("caption", table.title), element("thead", head), element("tbody", *rows, Safe("\n"))
    )
    box = element("div", drawn, class_="scroll", tabindex=0, role="region", aria_label=table.title)
    return joined([box, paragraphs(table.notes, "note")])


def _cell(tag: str, content: str, numeric: bool, scope: str | None) -> Safe:
    return element(tag, content, class_="number" if numeric else None, scope=scope)


def definitions(rows: Iterable[tuple[str, ...]], kind: str) -> Safe:
    """Names with their values: the first, and what is said below it."""
    groups = [
        element(
            "div",
            element("dt", key),
            *(element("dd", value, class_="more" if i else None) for i, value in enumerate(values)),
        )
        for key, *values in rows
    ]
    return element("dl", *groups, class_=kind)


def code_block(content: str, label: str) -> Safe:
    """Lines as they are, in a box that scrolls."""
    return element("pre", element("code", content), tabindex=0, role="region", aria_label=label)


def details(summary: str, *children: str | Safe, brief: bool = False) -> Safe:
    """Folded away; what is brief is opened for print."""
    return element("details", element("summary", summary), *children, class_="brief" if brief else None)


def data_script(name: str, data: Mapping[str, Any]) -> Safe:
    """Data for the page's script; nothing in it can end the script element, and it holds no NaN."""
    written = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return Safe(f'<script type="application/json" id="{text(name)}">{written}</script>')


def document(title: str, style: str, scripts: Iterable[str], body: Safe) -> str:
    """The whole page, which loads nothing and runs no script but these, whatever else is in it.

    Args:
        title: of the window.
        style: CSS of ours.
        scripts: of ours and of libraries: trusted, without `</script`.
        body: with a header, a main part and a footer.
    """
    scripts = list(scripts)
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_source, scripts))}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        Safe(f"<style>{style}</style>"),
    ]
    whole = [
        Safe("<!doctype html>\n"),
        Safe('<html lang="en">\n'),
        element("head", *(Safe(f"{part}\n") for part in head)),
        Safe("\n<body>\n"),
        body,
        *(Safe(f"\n<script>{script}</script>") for script in scripts),
        Safe("\n</body>\n</html>\n"),
    ]
    return "".join(whole)


def _source(script: str) -> str:
    """What the policy calls a script: the digest of its text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
