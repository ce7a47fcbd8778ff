"""Simulation-based calibration of approximations on the pendulum, by the number of rows of data.

`python benchmarks/sbc.py`: a few CPU minutes; `--repetitions 400` for finer numbers.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings

import torch
from torch.distributions import LogNormal

import bayeswm as bwm
from bayeswm.base.errors import EstimateWarning
from bayeswm.diagnostics import sbc
from bayeswm.inference import SVI, Inference, Laplace
from bayeswm.structures import Pendulum

LAWS = {"mass": LogNormal(0.0, 0.4), "damping": LogNormal(math.log(0.3), 0.5)}
NOISE = {"angle": LogNormal(math.log(0.05), 0.4), "velocity": LogNormal(math.log(0.2), 0.4)}
WAYS: dict[str, Inference] = {"Laplace": Laplace(), "SVI": SVI(steps=600)}


def design(rows: int):
    """Two episodes from random starts under random torques."""

    def made(world: bwm.Worlds, g: torch.Generator) -> bwm.Trajectories:
        start = torch.randn(2, 2, generator=g, dtype=torch.float64)
        action = 4 * torch.rand(2, rows // 2, 1, generator=g, dtype=torch.float64) - 2
        return bwm.data.simulate(world, start, action, generator=g)

    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--inference", nargs="+", choices=WAYS, default=[*WAYS])
    arguments = parser.parse_args()
    repetitions = arguments.repetitions
    print(f"{repetitions} repetitions; coverage of 90 % intervals / p-value of uniform ranks\n")
    for name in arguments.inference:
        for rows in (8, 50):
            begin = time.process_time()
            model = bwm.BayesianDynamics(structure=Pendulum(**LAWS), inference=WAYS[name], noise=NOISE)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", EstimateWarning)
                found = sbc(model, design(rows), repetitions=repetitions)
            cover, p = found["coverage"].sel(level=0.9), found["p_value"]
            cells = [
                f"{q}: {float(c):.2f} / {float(v):.2g}" for q, c, v in zip(found.quantity.values, cover, p, strict=True)
            ]
            took = time.process_time() - begin
            print(f"{name}, {rows} rows: {'; '.join(cells)}", flush=True)
            print(
                f"    standard error {float(found['coverage_se'].sel(level=0.9)):.3f}, {found.attrs['failed']} failed, "
                f"{found.attrs['fits_that_warned']} warned ({found.attrs['first_warning'][:70]}), {took:.0f} CPU s",
                flush=True,
            )


if __name__ == "__main__":
    main()
