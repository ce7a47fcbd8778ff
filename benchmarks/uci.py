"""UCI regression with the 20 standard splits: a regression problem is one step from a known state.

State ``target``, 0 before the step; action: the features. Three families, each with a few settings. Within each
training split a fifth is held out; what scores the best log density there is the family's setting, and the best family
is the chosen one. Each family then learns from the whole training split (a Gaussian process is conditioned on what was
held out, the others are fitted again) and is tested. More than 2,000 rows take wider networks; the hyper-parameters of
a Gaussian process are then learned on 2,000 of them, and the exact process is conditioned on the rest.

Printed for each split: family (setting), log density in validation, test RMSE and log density; a file keeps them, so
that a run can be broken off and taken up again. Then for each data set the means over splits +- their standard error,
beside the means of MC dropout with tuned networks by Mukhoti, Stenetorp & Gal (2018), On the importance of strong
baselines in Bayesian deep learning. Data and splits are found as measured data are (`BAYESWM_DATA`); the splits are
CC BY-NC.
"""

import argparse
import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import HalfNormal

import bayeswm as bwm
from bayeswm.base.errors import DataError, DataWarning
from bayeswm.inference import RBF, Kernel, Laplace, LastLayer, Matern
from bayeswm.structures import MLP

SPLITS, WORLDS, HELD_OUT = 20, 2000, 0.2
FAMILIES = ("deep ensemble", "Laplace", "GP")
# rows beyond which networks are wider, and on which a Gaussian process learns its hyper-parameters: a fit repeats a
# Cholesky decomposition some fifty times, conditioning needs one
MANY = 2000


@dataclass(frozen=True)
class Problem:
    """Where a data set is, RMSE and log density of MC dropout, and SHA-256 of all its files one after the other."""

    folder: str
    rmse: float
    log_score: float
    sha256: str


PROBLEMS = {
    "boston": Problem(
        "bostonHousing", 2.904, -2.402, "8cfef49bf341076b668ed1d37a0e453ff24fca406c8165f40afe1a43f903c70e"
    ),
    "concrete": Problem("concrete", 4.826, -2.937, "ace2a223398f6247ea3300db34817c25f67621c9db0221e78b98bfa8734aa3a9"),
    "energy": Problem("energy", 0.539, -1.212, "1b7e70cc1126ca8578ce01ec6e2aac23115a8031e43e8ade80bf93ac9ad9295e"),
    "power-plant": Problem(
        "power-plant", 4.014, -2.808, "b49668fc9dee57cc9e7208081519fd45dd1e7468551c7c618c7da9774640ae5a"
    ),
}


class Table(NamedTuple):
    """Features (n, F), target (n, 1), and the rows of each split for training and test."""

    x: Tensor
    y: Tensor
    splits: list[tuple[Tensor, Tensor]]


class Score(NamedTuple):
    """Root mean square error of the mean, and mean log density."""

    rmse: float
    log_score: float


class Tried(NamedTuple):
    """A family's best setting, the log density of that in validation, and RMSE and log density in the test."""

    setting: str
    validation: float
    rmse: float
    log_score: float


def load(name: str, folder: Path) -> Table:
    """Read a data set with its splits, checked against its SHA-256."""
    problem = PROBLEMS[name]
    names = ["data", "index_features", "index_target"]
    names += [f"index_{part}_{k}" for k in range(SPLITS) for part in ("train", "test")]
    paths = [folder / "uci" / problem.folder / f"{n}.txt" for n in names]
    found = hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()
    if found != problem.sha256:
        raise DataError(f"{paths[0].parent}: expected files of SHA-256 {problem.sha256}, got {found}")
    values, features, target, *rows = (np.loadtxt(p) for p in paths)
    index = [torch.from_numpy(r).long() for r in rows]
    return Table(
        torch.from_numpy(values[:, features.astype(int)]),
        torch.from_numpy(values[:, [int(target)]]),
        list(zip(index[::2], index[1::2], strict=True)),
    )


def families(spread: float, rows: int) -> dict[str, dict[str, Callable[[], bwm.DynamicsModel]]]:
    """Each family with its settings, for a target of this standard deviation and so many rows."""

    def ensemble(*hidden: int, batch_size: int, learning_rate: float) -> bwm.DynamicsModel:
        return bwm.DeepEnsemble(
            structure=MLP(hidden=hidden), validation=0.1, batch_size=batch_size, learning_rate=learning_rate
        )

    def laplace(hidden: int) -> bwm.DynamicsModel:
        inference = Laplace(curvature=LastLayer(), starts=1)
        return bwm.BayesianDynamics(
            structure=MLP(hidden=(hidden,)), noise=HalfNormal(torch.tensor(spread)), inference=inference
        )

    def process(kernel: Kernel) -> bwm.DynamicsModel:
        return bwm.GaussianProcess(kernel=kernel, constant=True, features=64, sparse=None)

    networks = {"64, 64": lambda: ensemble(64, 64, batch_size=32, learning_rate=5e-3)}
    if rows > MANY:
        networks["200, 200"] = lambda: ensemble(200, 200, batch_size=64, learning_rate=5e-3)
    processes = {
        "Matern 3/2": lambda: process(Matern(nu=1.5)),
        "RBF + Matern 3/2": lambda: process(RBF() + Matern(nu=1.5)),
    }
    hidden = 100 if rows > MANY else 50
    made = networks, {str(hidden): lambda: laplace(hidden)}, processes
    return dict(zip(FAMILIES, made, strict=True))


def step(x: Tensor, y: Tensor) -> bwm.Trajectories:
    """One episode of one step for each row."""
    schema = bwm.Schema(
        state=[bwm.Variable("target")],
        action=[bwm.Variable(f"feature_{i}") for i in range(x.shape[1])],
        time_step=1.0,
    )
    return bwm.Trajectories(schema, state=torch.stack((torch.zeros_like(y), y), 1), action=x[:, None])


def fitted(make: Callable[[], bwm.DynamicsModel], x: Tensor, y: Tensor) -> bwm.DynamicsModel:
    """Return a model of these rows, which are in random order."""
    model = make()
    first = min(len(x), MANY) if isinstance(model, bwm.GaussianProcess) else len(x)
    with warnings.catch_warnings():
        # the state before the step, and a feature that never varies in a few rows
        warnings.filterwarnings("ignore", message="constant input column", category=DataWarning)
        model.fit(step(x[:first], y[:first]), seed=0, progress=False)
    return model.condition(step(x[first:], y[first:])) if first < len(x) else model


def score(model: bwm.DynamicsModel, x: Tensor, y: Tensor) -> Score:
    """Return how well the model predicts these rows."""
    g = torch.Generator().manual_seed(0)
    predictive = model.predictive(torch.zeros_like(y), x, worlds=WORLDS, generator=g)
    error = predictive.mean[:, 0].double() - y
    return Score(float(error.square().mean().sqrt()), float(predictive.log_prob(y[:, None]).double().mean()))


def run(table: Table, split: int, family: str) -> Tried:
    """Choose the family's setting within the training split, and test it."""
    train, test = table.splits[split]
    order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(split))]
    held_out, rest = order.tensor_split([round(HELD_OUT * len(order))])
    x, y = table.x, table.y
    settings = families(float(y[train].std()), len(rest))[family]
    models = {name: fitted(make, x[rest], y[rest]) for name, make in settings.items()}
    scores = {name: score(model, x[held_out], y[held_out]).log_score for name, model in models.items()}
    best = max(scores, key=lambda name: scores[name])
    model = models[best]
    if isinstance(model, bwm.GaussianProcess):
        model = model.condition(step(x[held_out], y[held_out]))
    else:
        model = fitted(settings[best], x[train], y[train])
    return Tried(best, scores[best], *score(model, x[test], y[test]))


def chosen(found: dict[str, Tried]) -> str:
    """Return the family that is best in validation."""
    return max(found, key=lambda family: found[family].validation)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    table = np.asarray(values)
    return float(table.mean()), float(table.std(ddof=1) / math.sqrt(len(table))) if len(table) > 1 else math.nan


def as_good(name: str, scores: Sequence[Tried]) -> tuple[bool, bool]:
    """Return whether RMSE and log density are as good as MC dropout's means within one standard error."""
    rmse, rmse_error = mean_and_error([t.rmse for t in scores])
    log_score, log_error = mean_and_error([t.log_score for t in scores])
    return rmse - rmse_error <= PROBLEMS[name].rmse, log_score + log_error >= PROBLEMS[name].log_score


def summary(name: str, rows: Sequence[dict[str, Tried]]) -> None:
    """Print the table of one data set, of the splits on which all families were tried."""
    problem, picked = PROBLEMS[name], [chosen(row) for row in rows]
    print(f"{name}, {len(rows)} splits: RMSE and log density; MC dropout {problem.rmse} {problem.log_score}")
    columns = {family: [row[family] for row in rows] for family in rows[0]}
    columns["chosen"] = [row[family] for row, family in zip(rows, picked, strict=True)]
    for family, scores in columns.items():
        pairs = mean_and_error([t.rmse for t in scores]), mean_and_error([t.log_score for t in scores])
        shown = "  ".join(f"{mean:7.3f} +- {error:.3f}" for mean, error in pairs)
        note = f"chosen {picked.count(family)} times" if family != "chosen" else f"as good: {as_good(name, scores)}"
        print(f"  {family:14s}{shown}  {note}", flush=True)


def main(names: Sequence[str], wanted: Sequence[str], splits: range, *, folder: Path, record: Path) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    done: dict[tuple[str, int, str], Tried] = {}
    if record.is_file():
        for line in record.read_text().splitlines():
            name, split, family, tried = json.loads(line)
            done[name, split, family] = Tried(*tried)
    for name in names:
        table = load(name, folder)
        for k in splits:
            for family in wanted:
                if (name, k, family) in done:
                    continue
                began = time.process_time()
                tried = done[name, k, family] = run(table, k, family)
                with record.open("a") as file:
                    file.write(json.dumps([name, k, family, tried]) + "\n")
                numbers = f"{tried.validation:.3f} {tried.rmse:.3f} {tried.log_score:.3f}"
                spent = time.process_time() - began
                print(f"{name} {k:2d} {family} ({tried.setting}) {numbers}  {spent:.1f} CPU s", flush=True)
        rows = [{f: done[name, k, f] for f in FAMILIES if (name, k, f) in done} for k in range(SPLITS)]
        complete = [row for row in rows if len(row) == len(FAMILIES)]
        if complete:
            summary(name, complete)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(PROBLEMS), help="data sets; all by default")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--splits", type=int, nargs=2, default=(0, SPLITS), help="the first, and one past the last")
    parser.add_argument("--record", type=Path, default=Path("build/uci.jsonl"), help="results; what is there is kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    where = Path(os.environ.get("BAYESWM_DATA", beside))
    main(given.names, given.families, range(*given.splits), folder=where, record=given.record)
