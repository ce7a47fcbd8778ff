"""Set up the development environment of this clone; does nothing where it is already there.

Two parts:

* the dependencies, in a virtual environment outside the clone, named after what it was made from (the dependency lists
  of pyproject.toml, constraints.txt, the Python version, the platform) and shared by every clone that agrees on these;
* `.venv` in the clone, small and its own: it sees the shared dependencies and this clone's package, so that two clones
  never import each other's code, and a package that is installed by hand into one stays in that one.

A marker is written last in each, so that an interrupted set-up is never taken for a finished one. A lock lets only one
set-up run at a time; the operating system releases it however the process ends.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
MARKER = "bayeswm-complete"
# Raised when this file starts to build environments differently, so that old ones are not taken for new.
RECIPE = 1


def requirements(extra: str) -> list[str]:
    """All requirements of the project with one of its extras, extras that name other extras written out."""
    project = tomllib.loads((CLONE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = list(project["dependencies"])
    queue = [extra]
    while queue:
        for requirement in project["optional-dependencies"][queue.pop()]:
            own = re.fullmatch(rf"{project['name']}\[([\w\s,-]+)\]", requirement)
            if own is None:
                found.append(requirement)
            else:
                queue.extend(name.strip() for name in own[1].split(","))
    return sorted(set(found))


def key(wanted: list[str]) -> str:
    """Name of everything that decides what an environment holds."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    parts = [str(RECIPE), *wanted, (CLONE / "constraints.txt").read_text(encoding="utf-8")]
    parts += [version, sys.implementation.name, sysconfig.get_platform()]
    return f"{version}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"


def site_packages(environment: Path) -> Path:
    """Where an environment keeps its packages."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))


def remove(path: Path) -> None:
    """Delete a folder, or the link that stands in its place."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def mark(environment: Path, text: str) -> None:
    """Declare an environment finished, in one step that cannot be seen half done."""
    partial = environment / f"{MARKER}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(environment / MARKER)


def marked(environment: Path, text: str) -> bool:
    """Whether an environment was finished, for this very purpose, and its interpreter still stands."""
    marker = environment / MARKER
    python = environment / "bin" / "python"
    return marker.is_file() and marker.read_text(encoding="utf-8") == text and python.exists()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other set-up holds this lock, then hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up is running; waiting for it to end", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def install(cached: Path, wanted: list[str]) -> None:
    """Make the shared environment from nothing."""
    print(f"installing the dependencies into {cached} (once; this downloads some gigabytes)", flush=True)
    remove(cached)
    own_pip = find_spec("ensurepip") is not None
    if not own_pip and find_spec("pip") is None:
        sys.exit(f"{sys.executable} has neither pip nor ensurepip: install pip for it (on Debian: python3-pip)")
    venv.create(cached, symlinks=True, with_pip=own_pip)
    python = str(cached / "bin" / "python")
    pip = [python, "-m", "pip"] if own_pip else [sys.executable, "-m", "pip", "--python", python]
    options = ["--quiet", "--disable-pip-version-check", "--constraint", str(CLONE / "constraints.txt")]
    # A file rather than arguments: a requirement may hold characters that pip reads differently on its command line.
    listing = cached / "requirements.txt"
    listing.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    done = subprocess.run([*pip, "install", *options, "--requirement", str(listing)], check=False)
    if done.returncode:
        sys.exit("the dependencies could not be installed; the reason stands above")


def link(own: Path, cached: Path) -> None:
    """Make the clone's own small environment, which sees the shared one."""
    remove(own)
    venv.create(own, symlinks=True, with_pip=False)
    packages = site_packages(cached)
    listing = f"{CLONE}\n{packages}\n"
    (site_packages(own) / "bayeswm_clone.pth").write_text(listing, encoding="utf-8")
    # Jupyter looks for its kernels and templates under the environment's prefix.
    if (cached / "share").is_dir():
        (own / "share").symlink_to(cached / "share")
    link_programs(own, cached)


def link_programs(own: Path, cached: Path) -> None:
    """Give the clone's environment the programs of the shared one, run by the clone's own interpreter."""
    for distribution in metadata.distributions(path=[str(site_packages(cached))]):
        for entry in distribution.entry_points.select(group="console_scripts"):
            script = own / "bin" / entry.name
            # Through sh, because the first line of a script may hold neither a long path nor one with a blank.
            script.write_text(
                f"#!/bin/sh\n'''exec' \"{own / 'bin' / 'python'}\" \"$0\" \"$@\"\n' '''\n"
                f"import sys\nfrom {entry.module} import {entry.attr.split('.')[0]}\nsys.exit({entry.attr}())\n",
                encoding="utf-8",
            )
            script.chmod(0o755)
    for program in (cached / "bin").iterdir():
        other = own / "bin" / program.name
        if not other.exists() and not program.name.lower().startswith(("activate", "pip", "python")):
            other.symlink_to(program)


def main() -> None:
    """Set up what is missing."""
    wanted = requirements("dev")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "bayeswm"
    name = key(wanted)
    cached = cache / f"venv-{name}"
    own = CLONE / ".venv"
    purpose = f"{cached}\n{CLONE}\n"
    if marked(cached, name) and marked(own, purpose):
        return
    with locked(cache / f"venv-{name}.lock"):
        if not marked(cached, name):
            install(cached, wanted)
            mark(cached, name)
        if not marked(own, purpose):
            link(own, cached)
            mark(own, purpose)


if __name__ == "__main__":
    main()
