"""The documentation site: `make docs`. The source folder is the whole repository, so that links hold on both sides.

README.md, docs/ and results/ are the pages; a link between them, or to a config, works as it stands in a checkout, on
a code host and on the site. Nothing is fetched, and every notebook is executed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

project = "evoquant"
author = "the authors of evoquant"
copyright = author
root_doc = "docs/index"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Only the pages: nobody walks through environments and runs.
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "results")
exclude_patterns = [
    *sorted(entry.name for entry in ROOT.iterdir() if entry.name not in PAGES),
    *("docs/_build", "**/*.in.md", "**/.*", "**/__pycache__", "docs/conf.py"),
]

html_theme = "furo"
html_title = "evoquant"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["notebooks.css"]
html_extra_path = ["redirect"]  # the address without a page's name
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3
nitpicky = True
# Other projects' objects are not linked: that takes their inventories from the network. Annotations name classes as
# their module imports them, without a path.
nitpick_ignore_regex = [(r"py:.*", r"(?!evoquant\.).*")]

suppress_warnings = ["myst.header"]  # tables in results/ are rendered with a heading of the third level

maximum_signature_line_length = 100
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
default_role = "code"  # in docstrings, one backtick is what two are in reStructuredText

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # which readers' browsers would fetch from elsewhere

# Notebooks call the command line of the environment that builds, and compute in one thread, as the tests do.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", COLUMNS="100", NO_COLOR="1")
os.environ.pop("EVOQUANT_DATA", None)


def generate(app: Sphinx, name: str, source: list[str]) -> None:
    """Put what is made from the program where a page asks for it."""
    import generated

    for page, make in generated.PAGES.items():
        if f"<!-- generated: {page} -->" in source[0]:
            source[0] = source[0].replace(f"<!-- generated: {page} -->", make())


def setup(app: Sphinx) -> None:
    """Sphinx calls it."""
    app.connect("source-read", generate)
