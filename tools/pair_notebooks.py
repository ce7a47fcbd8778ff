"""Keep each notebook equal to its source: `pair_notebooks.py write` rewrites them, `pair_notebooks.py check` compares.

The source is a script in the percent format of jupytext; the `.ipynb` beside it has no output and is never edited. The
same source always gives the same bytes, so that comparing is enough.
"""

import sys
from pathlib import Path

import jupytext
import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def sources() -> list[Path]:
    """Scripts that are notebooks: the header of the percent format says so."""
    return [path for path in sorted(NOTEBOOKS.glob("*.py")) if "format_name: percent" in path.read_text("utf-8")]


def rendered(source: Path) -> str:
    """Text of the notebook that belongs to a source."""
    notebook = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        # jupytext draws these at random.
        cell["id"] = f"cell-{number:02d}"
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def main(command: str) -> int:
    """Write or check all notebooks; the number of problems found."""
    found = sources()
    problems = 0
    if not found:
        print(f"no source in {NOTEBOOKS}: expected scripts in the percent format of jupytext")
        problems += 1
    for source in found:
        paired = source.with_suffix(".ipynb")
        text = rendered(source)
        if paired.exists() and paired.read_text("utf-8") == text:
            continue
        if command == "write":
            paired.write_text(text, "utf-8")
            print(f"wrote {paired.name}")
        else:
            print(f"{paired.name} is not what {source.name} gives: run `make notebooks` and commit both")
            problems += 1
    for paired in sorted(NOTEBOOKS.glob("*.ipynb")):
        if paired.with_suffix(".py") not in found:
            print(f"{paired.name} has no source: expected {paired.stem}.py in the percent format of jupytext")
            problems += 1
    return problems


if __name__ == "__main__":
    if sys.argv[1:] not in (["write"], ["check"]):
        sys.exit(f"usage: {Path(sys.argv[0]).name} write|check")
    sys.exit(min(main(sys.argv[1]), 1))
