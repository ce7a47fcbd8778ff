"""Run the demo notebook, print its table, and leave pictures, predictions and the executed notebook in build/demo."""

import os
import sys
import time
from pathlib import Path

import jupytext
import nbconvert
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "demo"


def main() -> int:
    """Return 0 when the notebook ran through."""
    began = time.monotonic()
    OUT.mkdir(parents=True, exist_ok=True)
    os.environ["BAYESWM_DEMO"] = str(OUT)
    # networks this small gain nothing from several threads, and lose a lot where cores are shared
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    beside = HERE.parent.parent / "shared" / "data"
    if beside.is_dir():
        os.environ.setdefault("BAYESWM_DATA", str(beside))
    notebook = jupytext.read(HERE / "demo.py", fmt="py:percent")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    print("learning two pendulums, about a minute ...", flush=True)
    place = {"metadata": {"path": str(HERE)}}
    NotebookClient(notebook, timeout=1800, resources=place, extra_arguments=["--log-level=ERROR"]).execute()
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    (OUT / "demo.html").write_text(html, encoding="utf-8")
    print((OUT / "table.txt").read_text(encoding="utf-8"))
    print(f"{time.monotonic() - began:.0f} s; written to {OUT.relative_to(HERE.parent)}:")
    for path in sorted(OUT.iterdir()):
        print(f"  {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
