"""Timing in process CPU seconds, the protocol between processes, and the machine's best rate of matrix products."""

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch


def cpu_median(function: Callable[[], object], *, repeats: int, steps: int = 1) -> float:
    """Median CPU seconds a step of a function that makes ``steps`` of them, after one call that does not count."""
    function()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        times.append((time.process_time() - began) / steps)
    return statistics.median(times)


def emit(config: str, seconds: float, **more: float) -> None:
    """Print one result as a JSON line, named as in the peers' scripts."""
    print(json.dumps({"config": config, "cpu_median_s": seconds, **more}), flush=True)


def median_of(found: Iterable[dict], start: str, key: str = "cpu_median_s") -> float:
    """Median over rounds of the lines whose configuration begins with ``start``; NaN if there is none."""
    values = [line[key] for line in found if str(line["config"]).startswith(start)]
    return statistics.median(values) if values else float("nan")


def comparison(peer: float, ours: float, *, name: str = "mbrl-lib") -> str:
    """Both times and their ratio in words; ours alone where there is no peer."""
    own = f"bayeswm {1e3 * ours:7.2f} ms"
    return own if math.isnan(peer) else f"{name} {1e3 * peer:7.2f} ms   {own}   ratio {peer / ours:.2f}"


def best_rate(rows: Iterable[int], *, units: int = 200) -> float:
    """Best rate of float32 matrix products seen on (rows, units) by (units, units), in flops a CPU second.

    Over the numbers of rows, both layouts, MKL and (where torch offers it) oneDNN. Each is the median of several tries.
    """
    weights = torch.randn(units, units)
    rates = []
    for n in rows:
        x, out = torch.randn(n, units), torch.empty(n, units)
        x_first, out_first = x.T.contiguous(), out.T.contiguous()
        ways: list[Callable[[], object]] = [
            lambda x=x, out=out: torch.mm(x, weights, out=out),
            lambda x=x_first, out=out_first: torch.mm(weights, x, out=out),
        ]
        if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            ways.append(lambda x=x: torch.ops.mkldnn._linear_pointwise(x, weights, None, "none", [], ""))
        flops = 2 * n * units * units
        steps = max(int(1e9 / flops), 1)
        for way in ways:

            def repeat(way: Callable[[], object] = way, steps: int = steps) -> None:
                for _ in range(steps):
                    way()

            rates.append(flops / cpu_median(repeat, repeats=7, steps=steps))
    return max(rates)


def set_up() -> None:
    """One thread, as the peers' scripts have it."""
    torch.set_num_threads(1)


def machine() -> str:
    """Processor family, instruction set and threads: enough to read a number by."""
    cpuinfo = Path("/proc/cpuinfo")
    found = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    family = next((line.split(":")[1].strip() for line in found if line.startswith("model name")), "unknown processor")
    parts = [family, torch.backends.cpu.get_cpu_capability(), f"{torch.get_num_threads()} thread"]
    parts += [f"torch {torch.__version__}"]
    if "MKL_ENABLE_INSTRUCTIONS" in os.environ:
        parts += [f"MKL_ENABLE_INSTRUCTIONS={os.environ['MKL_ENABLE_INSTRUCTIONS']}"]
    return ", ".join(parts)
