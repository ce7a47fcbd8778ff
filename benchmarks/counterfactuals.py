"""Counterfactuals against a simulator that can be put back and run again with the same noise.

Gymnasium's ``Pendulum-v1`` and ``CartPole-v1``, with noise of our own on every state, which is kept. A policy makes
factual episodes; the simulator is put back to their starts and replays the same noise under other actions: what would
have happened. Two questions: ``nudged``, the recorded actions but for the first ten, and ``other``, others altogether.

Models learn from other episodes. For each: the error of the counterfactual mean by horizon, with worlds conditioned on
the factual episode (a process exactly, HMC by tempering; the members of an ensemble are not reweighted) and without;
that of the same model's forecast under the same actions with fresh noise; and of the factual episode as the answer.
Beside it the coverage of 90 % intervals, which are epistemic alone where the noise is replayed. One fit is one draw of
what data may teach, and its error is shared by all questions to it: so there are several fits, each with data and
questions of its own, and standard errors are over fits.

Last, the noise that was abducted against the noise that was, and its correlation with the velocity: 0 of true noise,
which needs no simulator to be seen.

    python benchmarks/counterfactuals.py --fits 8 --episodes 4 --file build/counterfactuals.md

About 15 CPU minutes.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
import torch
from timing import machine, set_up
from torch import Tensor
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator, standard_normal, uniform
from bayeswm.base.structure import Structure
from bayeswm.causal import counterfactual
from bayeswm.diagnostics import Forecast, calibration_of_parts, forecast_of
from bayeswm.structures import CartPole, Pendulum
from bayeswm.structures.integrators import Euler, SemiImplicitEuler

LEVEL, WORLDS = 0.9, 64
# of float32 networks too
ROUNDING = 1e-7
Policy = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class System:
    """An environment, how its noise is scaled, and what is believed of its physics."""

    env: str
    truth: Structure
    noise: tuple[float, ...]
    learned: int
    steps: int
    rows: tuple[int, ...]
    shown: str
    speed: str
    beliefs: Mapping[str, Structure]

    @property
    def sd(self) -> Tensor:
        return torch.tensor(self.noise, dtype=torch.float64)

    @property
    def schema(self) -> bwm.Schema:
        schema = self.truth.schema
        assert schema is not None
        return schema


def pendulum(**laws: Any) -> Pendulum:
    known = {"length": 0.5, "gravity": 10.0, "upright": 0.0, "torque_limit": 2.0, "speed_limit": 8.0}
    return Pendulum(**known, **laws, integrator=SemiImplicitEuler(), time_step=0.05)


BODY = {"mass": LogNormal(0.0, 0.5), "inertia": LogNormal(math.log(0.3), 0.5)}
SYSTEMS = {
    "pendulum": System(
        env="Pendulum-v1",
        truth=Pendulum.gymnasium(),
        noise=(0.01, 0.1),
        learned=12,
        steps=60,
        rows=(1, 5, 10, 20, 40, 60),
        shown="angle",
        speed="velocity",
        beliefs={
            "HMC": pendulum(**BODY, damping=Normal(0.0, 0.1)),
            "HMC, wrong damping": pendulum(**BODY, damping=0.2),
        },
    ),
    "cart-pole": System(
        env="CartPole-v1",
        truth=CartPole.gymnasium(),
        noise=(0.002, 0.05, 0.002, 0.05),
        learned=24,
        steps=40,
        rows=(1, 5, 10, 20, 40),
        shown="angle",
        speed="angular_velocity",
        beliefs={
            "HMC": CartPole(
                cart_mass=LogNormal(0.0, 0.5),
                pole_mass=LogNormal(math.log(0.1), 0.5),
                length=LogNormal(math.log(0.5), 0.5),
                gravity=9.8,
                force_limit=10.0,
                integrator=Euler(),
                time_step=0.02,
            )
        },
    ),
}


class Simulator:
    """A Gymnasium environment that is put where we say, with our noise after each of its steps."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.env: Any = gymnasium.make(system.env).unwrapped
        self.env.reset(seed=0)

    def run(self, start: Tensor, actions: Tensor | Policy, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (H + 1, S) and actions (H, A) from a start, under standard normal noise (H, S)."""
        states, taken = [start], []
        for t, eps in enumerate(noise):
            action = actions(states[-1], t) if callable(actions) else actions[t]
            self.env.state = states[-1].numpy()
            if self.system.env == "CartPole-v1":
                # a pole that has fallen goes on
                self.env.steps_beyond_terminated = None
                self.env.step(int(action > 0))
            else:
                self.env.step(action.numpy())
            states.append(torch.from_numpy(np.array(self.env.state)) + self.system.sd * eps)
            taken.append(action)
        return torch.stack(states), torch.stack(taken)


def plan(system: System, g: torch.Generator) -> Tensor:
    """Actions that do not look, (H, 1): torques held for 5 steps, or pushes to either side for 2."""
    held = 5 if system.env == "Pendulum-v1" else 2
    u = 2 * uniform((system.steps // held,), g, dtype=torch.float64, device="cpu") - 1
    u = 2 * u if system.env == "Pendulum-v1" else 10 * u.sign()
    return u.repeat_interleave(held)[:, None]


def policy(system: System, g: torch.Generator) -> Policy:
    """Return a policy that explores: one that pumps energy, one that holds the pole up, now and then overruled."""
    own = plan(system, g)
    if system.env == "Pendulum-v1":
        return lambda x, t: (0.5 * x[1].sign() + own[t]).clamp(-2, 2)
    overruled = uniform((system.steps,), g, dtype=torch.float64, device="cpu") < 0.6
    return lambda x, t: own[t] if overruled[t] else 10 * (x[2:3] + 0.3 * x[3:4] + 0.05 * x[1:2]).sign()


def recorded(system: System, episodes: int, g: torch.Generator) -> tuple[bwm.Trajectories, Tensor]:
    """Factual episodes, and their noise (episodes, H, S)."""
    simulator, size = Simulator(system), system.schema.state.size
    spread = torch.tensor([math.pi, 2.0] if size == 2 else [0.5, 0.5, 0.1, 0.5], dtype=torch.float64)
    start = spread * (2 * uniform((episodes, size), g, dtype=torch.float64, device="cpu") - 1)
    noise = standard_normal((episodes, system.steps, size), g, dtype=torch.float64, device="cpu")
    made = [simulator.run(x, policy(system, g), eps) for x, eps in zip(start, noise, strict=True)]
    states, actions = (torch.stack(v) for v in zip(*made, strict=True))
    with warnings.catch_warnings():
        # our noise can pass the speed limit by a little
        warnings.simplefilter("ignore", bwm.DataWarning)
        return bwm.Trajectories(system.schema, state=states, action=actions), noise


def questions(system: System, factual: bwm.Trajectories, g: torch.Generator) -> dict[str, Tensor]:
    """Other actions for each episode, (episodes, H, 1)."""
    other = torch.stack([plan(system, g) for _ in range(len(factual))])
    nudged = factual.action.clone()
    nudged[:, :10] = other[:, :10]
    return {"nudged": nudged, "other": other}


def learned(system: System, g: torch.Generator, *, seed: int) -> dict[str, bwm.DynamicsModel]:
    """Models of the system from episodes that are not asked about."""
    data, _ = recorded(system, system.learned, g)
    noise = dict(zip(system.schema.state.columns, system.noise, strict=True))
    models: dict[str, bwm.DynamicsModel] = {
        "truth": bwm.KnownDynamics(structure=system.truth, noise=noise),
        "Gaussian process": bwm.GaussianProcess().fit(data, seed=seed, progress=False),
        "ensemble": bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(64, 64)), members=10).fit(
            data, seed=seed, progress=False
        ),
    }
    hmc = bwm.inference.HMC(chains=16, draws=100)
    for name, structure in system.beliefs.items():
        with warnings.catch_warnings():
            # short chains for the sake of time; their effective size is printed
            warnings.simplefilter("ignore", bwm.FitWarning)
            models[name] = bwm.BayesianDynamics(structure=structure, inference=hmc).fit(data, seed=seed, progress=False)
    return models


def answers(
    model: bwm.DynamicsModel,
    factual: bwm.Trajectories,
    action: Tensor,
    *,
    given: Sequence[bwm.DynamicsModel],
    seed: int,
) -> dict[str, list[Predictive]]:
    """Say what would have happened, in several ways, each in parts of one or more episodes."""
    name, g = factual.schema.action.columns[0], make_generator(seed)
    free = counterfactual(model, factual, bwm.do({name: action[..., 0]}), condition=False, worlds=WORLDS, generator=g)
    fresh = bwm.rollout(model, factual.states()[:, 0], action, worlds=WORLDS, particles=20, generator=g)
    found = {"fresh": [fresh], "replayed": [free.predictive]}
    if given:
        found["replayed, worlds conditioned"] = [
            counterfactual(
                knows,
                factual[i : i + 1],
                bwm.do({name: action[i, :, 0]}),
                in_training=True,
                worlds=WORLDS,
                generator=g,
            ).predictive
            for i, knows in enumerate(given)
        ]
    return found


class Found(NamedTuple):
    """What all fits of a system gave."""

    forecasts: dict[tuple[str, str, str], list[Forecast]]
    factual_error: dict[str, list[Tensor]]
    noise: dict[str, list[tuple[Tensor, Tensor, Tensor]]]
    members: list[bool]
    shares: list[tuple[float, float]]


def asked(system: System, found: Found, *, fit: int, episodes: int, seed: int) -> None:
    """Fit all models once, ask them, and run the simulator again."""
    g, simulator = make_generator(seed), Simulator(system)
    models = learned(system, g, seed=seed)
    factual, noise = recorded(system, episodes, g)
    column = system.schema.state.column(system.speed)
    given: dict[str, list[bwm.DynamicsModel]] = {name: [] for name in models}
    for i in range(episodes):
        for name in ("Gaussian process", "HMC"):
            given[name].append(models[name].condition(factual[i : i + 1]))
        if isinstance(hmc := given["HMC"][-1], bwm.BayesianDynamics):
            figures = hmc.diagnostics
            found.shares.append(
                (figures.statistics["weight_share"], min(float(v.min()) for v in figures.ess_bulk.values()))
            )
        try:
            cast(bwm.DeepEnsemble, models["ensemble"]).condition(factual[i : i + 1], reweight=True)
            found.members.append(True)
        except bwm.FitError:
            found.members.append(False)
    for name, model in models.items():
        step = model.draw(WORLDS, generator=make_generator(seed)).smooth(factual)[0].step
        assert step is not None
        abducted = step[:, 0, ..., column].double().mean(0)
        found.noise.setdefault(name, []).append((abducted, noise[..., column], factual.states()[:, :-1, column]))
    for question, action in questions(system, factual, g).items():
        runs = [simulator.run(factual.states()[i, 0], action[i], noise[i])[0] for i in range(episodes)]
        truth = torch.stack(runs)[:, 1:]
        found.factual_error.setdefault(question, []).append(factual.states()[:, 1:] - truth)
        for name, model in models.items():
            for way, parts in answers(model, factual, action, given=given[name], seed=seed).items():
                done = 0
                for part in parts:
                    size = part.batch_shape[0]
                    forecast = forecast_of(part, truth[done : done + size], recording=torch.full((size,), fit))
                    found.forecasts.setdefault((question, name, way), []).append(forecast)
                    done += size


def line(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


def cells(forecasts: list[Forecast], system: System) -> list[str]:
    """Error and coverage at each of the horizons that are shown."""
    at = calibration_of_parts(forecasts, levels=[LEVEL]).sel(
        horizon=list(system.rows), level=LEVEL, variable=system.shown
    )
    values = zip(at.rmse.values, 100 * at.coverage.values, 100 * at.coverage_se.values, strict=True)
    return ["=" if rmse < ROUNDING else f"{rmse:.3g} ({cover:.0f} ± {se:.0f})" for rmse, cover, se in values]


def report(system: System, found: Found) -> Iterable[str]:
    """Lines on one system."""
    column, rows = system.schema.state.column(system.shown), [h - 1 for h in system.rows]
    for question, gaps in found.factual_error.items():
        yield f"\n### {question}: RMSE of the {system.shown} in rad (coverage in %) after so many steps; = is exact\n"
        yield line(["model", "noise", *map(str, system.rows)])
        yield line(["---"] * (2 + len(rows)))
        errors = torch.cat(gaps)[:, rows, column].square().mean(0).sqrt().tolist()
        yield line(["the factual episode", "", *("=" if e < ROUNDING else f"{e:.3g}" for e in errors)])
        for (asked_for, name, way), forecasts in found.forecasts.items():
            if asked_for == question:
                yield line([name, way, *cells(forecasts, system)])
    yield f"\n### abducted noise of the {system.speed}, mean over worlds\n"
    yield line(["model", "sd", "correlation with the noise that was", f"with the {system.speed}"])
    yield line(["---"] * 4)
    for name, parts in found.noise.items():
        abducted, true, speed = (torch.cat(v).flatten() for v in zip(*parts, strict=True))
        both = [float(torch.corrcoef(torch.stack((abducted, v)))[0, 1]) for v in (true, speed)]
        yield line([name, f"{abducted.std():.3f}", *(f"{c:.3f}" for c in both)])
    kept, all_of = sum(found.members), len(found.members)
    yield f"\nensemble reweighted by one factual episode: two or more of ten members keep weight in {kept} of {all_of}"
    exact = [
        f for (_, name, way), made in found.forecasts.items() if (name, way) == ("truth", "replayed") for f in made
    ]
    worst = max(float((f.predictive.mean - f.outcomes).abs().max()) for f in exact)
    yield f"truth replayed: largest error of any variable {worst:.1e}"
    share, ess = (min(v) for v in zip(*found.shares, strict=True))
    yield f"HMC conditioned on one: smallest share of weights {share:.2f}, smallest effective sample size {ess:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", nargs="*", default=list(SYSTEMS), help="pendulum, cart-pole")
    parser.add_argument("--fits", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=4, help="asked about of each fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", type=Path, default=Path("build/counterfactuals.md"))
    given = parser.parse_args()
    set_up()
    given.file.parent.mkdir(parents=True, exist_ok=True)
    with given.file.open("w", encoding="utf-8") as file:
        print(
            f"counterfactuals, {given.fits} fits of {given.episodes} episodes, seed {given.seed}; {machine()}",
            file=file,
        )
        for name in given.system:
            began, system, found = time.process_time(), SYSTEMS[name], Found({}, {}, {}, [], [])
            for fit in range(given.fits):
                asked(system, found, fit=fit, episodes=given.episodes, seed=given.seed + fit)
                print(f"{name}: fit {fit}, {time.process_time() - began:.0f} CPU s", flush=True)
            head = f"\n## {system.env}, noise {system.noise}, from {system.learned} episodes of {system.steps} steps"
            for text in (head, *report(system, found), f"\n{time.process_time() - began:.0f} CPU s"):
                print(text, flush=True)
                print(text, file=file, flush=True)


if __name__ == "__main__":
    main()
