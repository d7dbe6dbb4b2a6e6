"""The documentation site: `sphinx-build -W --keep-going docs docs/_build`."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

project = "ptychostream"
author = "The ptychostream developers"
copyright = "The ptychostream developers"
version = release = version_of("ptychostream")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # the docstrings give axes, dtype and unit, which annotations cannot
autodoc_member_order = "bysource"
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
templates_path: list[str] = []

html_theme = "pydata_sphinx_theme"
html_title = "ptychostream"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "friendly",
}


def setup(app: Any) -> None:
    """Writes what is generated from the code before the pages are read."""
    from docs._generate import write_pages

    app.connect("builder-inited", lambda app: write_pages(FOLDER / "reference" / "generated"))
