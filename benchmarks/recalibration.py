"""Calibration of three families before and after recalibration: `Pendulum-v1` with noise, and a measured pendulum.

Pendulum: Gymnasium's physics with Gaussian noise in each step and smooth random torques; 12 training episodes, 1,000
for recalibration (half for the scale, half for the tube), 600 held out, all of 50 steps.

Prints coverage of 90 % intervals and tubes, and the CRPS after as a multiple of that before.
"""

import argparse
import time

import torch
from torch.distributions import LogNormal

import bayeswm as bwm
from bayeswm.diagnostics import Scale, SplitConformal, SupT, calibration, forecast, recalibrate, tube_coverage
from bayeswm.structures import MLP, Pendulum, SemiImplicitEuler

HORIZON, SHOWN, LEVEL = 50, (1, 5, 10, 25, 50), 0.9
DRAWS = {"worlds": 20, "particles": 10}


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
        "GP": bwm.GaussianProcess(),
        "Bayesian physics": bwm.BayesianDynamics(structure=physics),
    }


def row(model: bwm.DynamicsModel, data: bwm.Trajectories) -> dict[str, torch.Tensor]:
    """Coverage and CRPS by horizon, each the mean over variables, and the tube's coverage."""
    found = calibration(model, data, horizon=HORIZON, levels=[LEVEL], bootstrap=200, **DRAWS)
    parts = forecast(model, data, horizon=HORIZON, **DRAWS)
    tube = tube_coverage(parts, method=SupT(), level=LEVEL, bootstrap=200)
    coverage = found.coverage.sel(level=LEVEL, horizon=list(SHOWN))
    return {
        "coverage": torch.from_numpy(coverage.values),
        "crps": torch.from_numpy(found.crps.sel(horizon=list(SHOWN)).values),
        "tube": torch.tensor(float(tube.coverage)),
    }


def text(values: torch.Tensor) -> str:
    return "  ".join(f"{v:.3f}" for v in values.tolist())


def simulated() -> None:
    truth = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=[0.01, 0.05])
    train, fitting, test = (episodes(truth, n, seed=i) for i, n in enumerate((12, 1000, 600)))
    columns = "  ".join(f"{h:5d}" for h in SHOWN)
    print(f"Pendulum-v1 with noise: coverage of 90 % intervals at steps {columns}   tube   CRPS after / before")
    for name, model in families().items():
        began = time.process_time()
        model.fit(train, seed=0, progress=False)
        scaled = recalibrate(model, fitting[:500], horizon=HORIZON, method=Scale(), **DRAWS)
        tubed = recalibrate(scaled, fitting[500:], horizon=HORIZON, method=SplitConformal(level=LEVEL), **DRAWS)
        before, after, tube = row(model, test), row(scaled, test), row(tubed, test)
        for i, variable in enumerate(model.schema.state.columns):
            label = f"  {name:16s} {variable:8s}"
            ratio = text(after["crps"][:, i] / before["crps"][:, i])
            print(f"{label} before   {text(before['coverage'][:, i])}   {before['tube']:.3f}")
            print(f"{label} scaled   {text(after['coverage'][:, i])}   {after['tube']:.3f}   {ratio}")
        spent = time.process_time() - began
        print(f"  {name:16s} scaled, conformal: tube {tube['tube']:.3f}   ({spent:.0f} CPU s)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    simulated()
