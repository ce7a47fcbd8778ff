"""Calibration of three families before and after recalibration, on `Pendulum-v1` with noise.

Gymnasium's physics with Gaussian noise in each step and smooth random torques; 8 training episodes, twice 2,500 for
recalibration (first the scale, then the tube), 2,500 held out, all of 50 steps. Forecasts of 20 worlds x 5 particles.

Prints coverage of 90 % intervals and tubes, and the CRPS after as a multiple of that before. About half an hour.
"""

import argparse
import time
import warnings

import torch
import xarray as xr
from torch.distributions import LogNormal

import bayeswm as bwm
from bayeswm.diagnostics import Isotonic, Scale, SplitConformal, recalibrate, report
from bayeswm.structures import MLP, Pendulum, SemiImplicitEuler

HORIZON, SHOWN, LEVEL = 50, [1, 5, 10, 25, 50], 0.9
DRAWS = {"worlds": 20, "particles": 5}


def episodes(truth: bwm.KnownDynamics, count: int, *, seed: int) -> bwm.Trajectories:
    """Episodes from random starts under smooth random torques."""
    g = torch.Generator().manual_seed(seed)
    start = torch.randn(count, 2, generator=g, dtype=torch.float64) * torch.tensor([2.0, 1.0])
    white = torch.randn(count, HORIZON, 1, generator=g, dtype=torch.float64)
    torque, rows = torch.zeros(count, 1, dtype=torch.float64), []
    for t in range(HORIZON):
        torque = 0.9 * torque + white[:, t]
        rows.append(torque.clamp(-2, 2))
    return bwm.data.simulate(truth, start, torch.stack(rows, 1), generator=g)


def families() -> dict[str, bwm.DynamicsModel]:
    """The three families, none told what the truth is."""
    physics = Pendulum(
        mass=LogNormal(0.0, 0.5),
        length=0.5,
        inertia=LogNormal(-1.0, 0.5),
        gravity=10.0,
        upright=0.0,
        torque_limit=2.0,
        speed_limit=8.0,
        integrator=SemiImplicitEuler(),
    )
    return {
        "deep ensemble": bwm.DeepEnsemble(structure=MLP(hidden=(64, 64)), members=5),
        "Bayesian physics": bwm.BayesianDynamics(structure=physics),
        "GP": bwm.GaussianProcess(),
    }


def text(values: xr.DataArray) -> str:
    """Numbers at the steps that are shown."""
    return "  ".join(f"{v:.3f}" for v in values.sel(horizon=SHOWN).values)


def main(episodes_each: int, only: str | None) -> None:
    """Print the table."""
    truth = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=[0.01, 0.05])
    counts = (8, episodes_each, episodes_each, episodes_each)
    train, scaling, shaping, test = (episodes(truth, n, seed=i) for i, n in enumerate(counts))
    columns = "  ".join(f"{h:5d}" for h in SHOWN)
    print(f"coverage of 90 % intervals at steps     {columns}   tube   CRPS after / before")
    for name, model in families().items():
        if only not in (None, name):
            continue
        began = time.process_time()
        model.fit(train, seed=0, progress=False)
        settings = {"horizon": HORIZON, **DRAWS}
        scaled = recalibrate(model, scaling, method=Scale(), **settings)
        models = {
            "before": model,
            "scaled": scaled,
            "and conformal": recalibrate(scaled, shaping, method=SplitConformal(level=LEVEL), **settings),
            "isotonic": recalibrate(model, scaling, method=Isotonic(), **settings),
        }
        found = {label: report(m, test, bootstrap=200, **settings) for label, m in models.items()}
        for variable in model.schema.state.columns:
            before = found["before"].crps.sel(variable=variable)
            for label, dataset in found.items():
                at = dataset.sel(variable=variable)
                inside, tube = text(at.coverage.sel(level=LEVEL)), float(dataset.tube_coverage)
                print(f"  {name:16s} {variable:8s} {label:13s} {inside}   {tube:.3f}   {text(at.crps / before)}")
        print(f"  {name}: {time.process_time() - began:.0f} CPU s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=2500)
    parser.add_argument("--only", help="one family")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # the noise takes a few recorded velocities beyond the speed limit
    warnings.simplefilter("ignore", bwm.DataWarning)
    main(arguments.episodes, arguments.only)
