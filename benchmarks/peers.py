"""The peers' scripts, which lie beside the checkout, and the environment in which they run.

The environment is cached outside the clone. It holds only the peers' own packages and sees the project's dependencies,
so that both sides compute with the same torch.
"""

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

CLONE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CLONE / "tools"))
from setup_environment import locked, mark, marked, remove, site_packages  # noqa: E402

SCRIPTS = CLONE.parent / "shared" / "peers"
REQUIREMENTS = CLONE / "benchmarks" / "peer_requirements.txt"
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")} | {"THREADS": "1"}


def interpreter() -> Path | None:
    """Interpreter of the peers' environment, made if absent; None where there are no scripts to run."""
    if not SCRIPTS.is_dir():
        return None
    shared = Path(torch.__file__).resolve().parent.parent
    parts = [REQUIREMENTS.read_text(encoding="utf-8"), str(shared), sys.version]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "bayeswm"
    own = cache / f"peers-{name}"
    with locked(cache / f"peers-{name}.lock"):
        if not marked(own, name):
            _install(own, shared)
            mark(own, name)
    return own / "bin" / "python"


def _install(own: Path, shared: Path) -> None:
    print(f"installing the peers into {own} (once)", file=sys.stderr, flush=True)
    remove(own)
    with_pip = find_spec("ensurepip") is not None
    venv.create(own, symlinks=True, with_pip=with_pip)
    python = str(own / "bin" / "python")
    pip = [python, "-m", "pip"] if with_pip else [sys.executable, "-m", "pip", "--python", python]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--requirement", str(REQUIREMENTS)]
    if subprocess.run([*pip, "install", *options], check=False).returncode:
        sys.exit("the peers could not be installed; the reason stands above")
    (site_packages(own) / "bayeswm_dependencies.pth").write_text(f"{shared}\n", encoding="utf-8")


def lines(command: list[str], until: Callable[[dict[str, object]], bool] | None = None) -> list[dict]:
    """Run a program on one thread and return its JSON lines; end it after the first one for which ``until`` holds."""
    environment = {**os.environ, **ONE_THREAD, "PYTHONDONTWRITEBYTECODE": "1"}
    found: list[dict] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            found.append(json.loads(line))
            if until is not None and until(found[-1]):
                process.terminate()
                return found
        assert process.stderr is not None
        errors = process.stderr.read()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{errors}")
    return found


def peer_lines(script: str, *arguments: str, until: Callable[[dict[str, object]], bool] | None = None) -> list[dict]:
    """Run a peer's script; no lines where the scripts are absent."""
    python = interpreter()
    if python is None:
        return []
    return lines([str(python), "-W", "ignore", str(SCRIPTS / script), *arguments], until)


def own_lines(script: str) -> list[dict]:
    """Run our side of a benchmark in a process of its own."""
    return lines([sys.executable, script, "--own"])
