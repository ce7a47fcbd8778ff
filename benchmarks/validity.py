"""Size and power of the calibration test on trajectories, beside a pooled Kolmogorov-Smirnov test: docs/validity.md.

`python benchmarks/validity.py` prints the table and writes the figure (about two minutes); `--repetitions 1000`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bayeswm.diagnostics.calibration_test import (
    NormalSums,
    cauchy_combination,
    independent_test,
    normal_sums,
    sums_test,
)

SYSTEMS = {"random walk": 1.0, "AR(0.9)": 0.9, "iid": 0.0}
SIZES = (("random walk", 50, 20), ("AR(0.9)", 50, 20), ("iid", 50, 20), ("random walk", 20, 50))
FIGURE = Path(__file__).parent.parent / "docs" / "_static" / "validity.png"
DRAWS, POOL = 999, 20_000


def pit(system: str, shape: tuple[int, int, int], *, scale: float, generator: torch.Generator) -> Tensor:
    """PIT of x[t+1] = phi x[t] + noise from a known start, forecast with ``scale`` times the true deviation."""
    phi, noise = SYSTEMS[system], torch.randn(*shape, generator=generator, dtype=torch.float64)
    x, variance, values = torch.zeros(shape[:2], dtype=torch.float64), 0.0, []
    for h in range(shape[2]):
        x, variance = phi * x + noise[..., h], phi**2 * variance + 1
        values.append(torch.special.ndtr(x / (scale * math.sqrt(variance))))
    return torch.stack(values, -1)


def null_sums(system: str, n: int, *, steps: int, pool: int, generator: torch.Generator) -> NormalSums:
    """Sums of data sets simulated from the forecasts' joint law, which the repetitions draw theirs from."""
    parts = [
        normal_sums(pit(system, (500, n, steps), scale=1.0, generator=generator), dim=1) for _ in range(pool // 500)
    ]
    return NormalSums(*(torch.cat(values) for values in zip(*parts, strict=True)))


def p_values(system: str, n: int, *, steps: int, scale: float, repetitions: int, pool: int = POOL) -> dict[str, Tensor]:
    """P-values of each test in each repetition."""
    generator = torch.Generator().manual_seed(0)
    null = null_sums(system, n, steps=steps, pool=pool, generator=generator)
    came = pit(system, (repetitions, n, steps), scale=scale, generator=generator)
    sums = normal_sums(came, dim=1)
    simulated, cauchy = list[Tensor](), list[Tensor]()
    for one in zip(*sums, strict=True):
        pick = torch.randint(pool, (DRAWS,), generator=generator)
        simulated.append(sums_test(NormalSums(*one), NormalSums(*(v[pick] for v in null))).p_value)
        cauchy.append(independent_test(NormalSums(*one)).p_value)

    return {
        "simulated": torch.stack(simulated),
        "Cauchy": torch.stack(cauchy),
        "pooled KS": ks(came.flatten(1)),
        "KS by step": cauchy_combination(ks(came.mT.contiguous()), dim=-1),
    }


def ks(values: Tensor, *, exact: bool = True) -> Tensor:
    """P-values of Kolmogorov-Smirnov tests of uniformity along the last axis; by a table, which is fast."""
    from scipy import stats

    ordered, count = np.sort(values.numpy(), axis=-1), values.shape[-1]
    above, below = np.arange(1, count + 1) / count - ordered, ordered - np.arange(count) / count
    distance = np.maximum(above.max(-1), below.max(-1))
    if not exact:
        return torch.from_numpy(stats.kstwobign.sf(distance * np.sqrt(count)))
    at = np.linspace(0.5 / count, min(1.0, 4 / np.sqrt(count)), 1000)
    return torch.from_numpy(np.interp(distance, at, stats.kstwo.sf(at, count)))


def draw(sizes: dict[str, dict[str, float]], path: Path) -> None:
    """Draw how often calibrated forecasts are rejected."""
    from matplotlib.figure import Figure

    ax = (figure := Figure(figsize=(7, 3.2), layout="constrained")).subplots()
    looks = {"pooled KS": "#D55E00", "Cauchy": "#56B4E9", "simulated": "#0072B2"}
    for k, (name, color) in enumerate(looks.items()):
        share = [100 * of[name] for of in sizes.values()]
        bars = ax.bar(np.arange(len(share)) + 0.27 * (k - 1), share, 0.25, color=color, label=name)
        ax.bar_label(bars, fmt="%.0f", fontsize="small")
    ax.axhline(5, color="#222222", linestyle=(0, (4, 3)), linewidth=1)
    ax.set_xticks(range(len(sizes)), list(sizes))
    ax.set_ylabel("calibrated forecasts rejected (%)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table of docs/validity.md and draw its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    repetitions = parser.parse_args().repetitions
    sizes = {}
    for system, n, steps in SIZES:
        for scale in (1.0, 0.8, 1.25) if n == 50 else (1.0,):
            found = p_values(system, n, steps=steps, scale=scale, repetitions=repetitions)
            share = {name: float((p <= 0.05).double().mean()) for name, p in found.items()}
            print(
                f"| {system}, {n} x {steps} | {scale} | " + " | ".join(f"{100 * s:.1f}" for s in share.values()) + " |",
                flush=True,
            )
            if scale == 1.0:
                sizes[f"{system}\n{n} x {steps}"] = share
    draw(sizes, FIGURE)


if __name__ == "__main__":
    main()
