"""How much memory is left, so that a result that cannot fit is refused before it is begun; and its reuse."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_ROOT = Path("/")


def keep_blocks() -> None:
    """Have the C library keep blocks of up to 32 MB for reuse after they were freed.

    The GNU library hands large blocks back to the system at once, until it has seen one of their size freed; asking for
    the memory again then costs more than an elementwise operation on it. Elsewhere this changes nothing.

    Examples
    --------
    >>> keep_blocks()
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def available_memory(device: torch.device | str = "cpu", *, root: Path = _ROOT) -> int | None:
    """Return the bytes that a new result could take on a device.

    On the CPU, what the system says is available, or what the limits of the process's control groups leave, whichever
    is less; where neither can be read, all memory. On CUDA, what is free, with what torch keeps for reuse.

    Parameters
    ----------
    device : torch.device or str
        Where the result will be.
    root : Path
        Where ``proc`` and ``sys`` lie.

    Returns
    -------
    int or None
        None where nothing is known.

    Examples
    --------
    >>> (available_memory() or 1) > 0
    True
    """
    device = torch.device(device)
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != "cpu":
        return None
    found = [n for n in (_system(root), *_control_groups(root)) if n is not None]
    if found:
        return max(min(found), 0)
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _system(root: Path) -> int | None:
    kilobytes = _table(root / "proc/meminfo").get("MemAvailable")
    return None if kilobytes is None else 1024 * kilobytes


def _control_groups(root: Path) -> list[int | None]:
    """Return what each limit leaves: those of the process's groups and of all groups above them, versions 1 and 2."""
    found: list[int | None] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / path.strip("/")
        while True:
            found.append(_left(group, names))
            if group == base or base not in group.parents:
                break
            group = group.parent
    return found


def _left(group: Path, names: tuple[str, str, str]) -> int | None:
    limit, usage, cache = names
    most, used = _text(group / limit).strip(), _text(group / usage).strip()
    if not most.isdigit() or not used.isdigit():
        return None
    # pages of files that were not used lately count as used, but are given up on demand
    return int(most) - int(used) + _table(group / "memory.stat").get(cache, 0)


def _table(path: Path) -> dict[str, int]:
    rows = (line.replace(":", " ").split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
