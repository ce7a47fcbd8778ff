"""The code of README.md runs as it stands, block after block in one namespace."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


def python_blocks(text: str) -> list[str]:
    """Python code of a Markdown text, each block moved down to its own line numbers so that tracebacks point there."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, block.start(1)) + block[1] for block in found]


def test_blocks_keep_their_line_numbers():
    text = "title\n\n```python\na = 1\n```\n\n```sh\nmake\n```\n\n```python\nb = a\n```\n"
    assert python_blocks(text) == ["\n\n\na = 1\n", "\n" * 11 + "b = a\n"]


@pytest.mark.readme
def test_readme_runs(tmp_path, monkeypatch):
    # What the examples write lands here, not in the checkout.
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(README.read_text(encoding="utf-8"))
    assert blocks, "README.md shows no Python code"
    namespace = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
