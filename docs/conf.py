"""Configuration of the documentation: `make docs` builds it into build/docs, without a network."""

import importlib
import os
import pkgutil
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx import addnodes
from sphinx.errors import ConfigError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bayeswm

project = "bayeswm"
author = "The bayeswm developers"
copyright = author
version = release = bayeswm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = "bayeswm"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
html_show_sourcelink = False
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
# Pages without pages below them have nothing to show at the side.
html_sidebars = {name: [] for name in ("quickstart", "worlds", "validity", "architecture", "changelog")}

# Pages with {code-cell} blocks run at every build, so that what they print is what the library does today.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
# What a loop prints is one block, however often it was flushed.
nb_merge_streams = True
# Pictures belong to the page, whatever backend the caller's shell has set.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
# The progress bar of notebooks asks for widgets, for which a page has no use.
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
# A package is documented by what it exports, wherever that is written.
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # fields of named tuples are described once, with their class

API = Path(__file__).with_name("api")
listed = API.joinpath("index.md").read_text(encoding="utf-8").split()
for package in pkgutil.iter_modules(bayeswm.__path__, "bayeswm."):
    if package.ispkg and package.name not in listed:
        raise ConfigError(f"{package.name} is not in the API reference: add a line for it to docs/api/index.md")

AXES = {"action", "batch", "context", "horizon", "members", "observation", "particles", "sample", "state", "worlds"}
autosummary_context = {"listed": listed}

STARRED_AXIS = re.compile(r"(?:(?<=\()|(?<=, ))\*(?=[A-Za-z_]+[,)])")


def escape_starred_axes(app, what, name, obj, options, lines) -> None:
    """Keep the star of shapes such as (worlds, *batch, state): the markup would read it as the start of emphasis."""
    for number, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        # Every second piece stands between backquotes and is shown as it is.
        pieces = re.split(r"(`+[^`]*`+)", line)
        pieces[::2] = [STARRED_AXIS.sub(r"\\*", piece) for piece in pieces[::2]]
        lines[number] = "".join(pieces)


def keep_sentences(app, what, name, obj, options, lines) -> None:
    """Undo napoleon's reading of a property's "Variance, shape (*batch, S): what it is" as a type and a text."""
    if what in ("attribute", "data", "property"):
        for number in [n for n, line in enumerate(lines) if line.startswith(":type: ")]:
            lines[0] = f"{lines.pop(number).removeprefix(':type: ')}: {lines[0]}"


def unlink_words(app, doctree) -> None:
    """Take the links off plain words of a type line: in (worlds, *batch, state) they name axes, not attributes."""
    for link in list(doctree.findall(addnodes.pending_xref)):
        target = link.get("reftarget", "")
        if link.get("refdomain") == "py" and target in AXES and link.get("reftype") in ("class", "obj"):
            link.replace_self(link.children)


def check_reference(app, env) -> None:
    """Refuse a reference that lacks a public name of a listed package."""
    documented = set(env.domaindata["py"]["objects"])
    for package in (name for name in listed if name.startswith("bayeswm.")):
        public = (f"{package}.{name}" for name in importlib.import_module(package).__all__)
        if missing := [name for name in public if name not in documented and name not in listed]:
            raise ConfigError(f"not in the API reference: {', '.join(missing)}; see docs/_templates/autosummary")


def write_math(translator, node) -> None:
    """Write a formula as MathML, which browsers show without a script from the network."""
    block = isinstance(node, nodes.math_block)
    translator.body.append(latex2mathml.tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app) -> None:
    """Register the steps; napoleon, at 500, adds stars that do mean emphasis, so that ours are escaped before it."""
    app.connect("autodoc-process-docstring", escape_starred_axes, priority=400)
    app.connect("autodoc-process-docstring", keep_sentences, priority=600)
    app.connect("doctree-read", unlink_words)
    app.add_html_math_renderer("mathml", inline_renderers=(write_math, None), block_renderers=(write_math, None))
    app.connect("env-updated", check_reference)
