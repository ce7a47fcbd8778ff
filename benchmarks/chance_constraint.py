"""Do plans keep what a chance constraint promises? A linear-Gaussian system in front of a wall, and a GP pendulum.

``wall``: x' = A x + B u + noise with a wall at place 1 and a cost that wants to be behind it, so that whatever is
allowed is used. A plan of 6 steps is executed open loop in 10,000 runs of the true system. The wall is in reach from
the second step on. Per step the rate has to be 5 % +- 4 standard errors there and nowhere more; for whole trajectories
at most that, and at least 3 % for the tube. Closed loop, 10,000 runs plan anew before each of 8 steps.

``selection``: rates of plans that were chosen on few particles, exact by the system's covariance, with and without a
confidence bound.

``pendulum``: a Gaussian process learns a pendulum from 24 s of random torques; a swing-up in closed loop on the true
system, with and without a limit on the speed.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from timing import machine, set_up
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.laws import MultivariateGaussian
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator
from bayeswm.planning import (
    CEM,
    ChanceConstraint,
    Constraint,
    FromParticles,
    GaussianTightening,
    HalfSpaces,
    InsideTube,
    Objective,
    Plan,
    Wilson,
    saturating,
    tip_distance,
)

A = torch.tensor([[1.0, 0.2], [0.0, 0.6]]).double()
B = torch.tensor([[0.5], [0.8]]).double()
NOISE = torch.tensor([0.03, 0.06]).double()
START = torch.tensor([0.5, 0.0]).double()
STEPS, RUNS, P = 6, 10_000, 0.05
ERROR = (P * (1 - P) / RUNS) ** 0.5
SCHEMA = bwm.Schema(
    state=[bwm.Variable("place"), bwm.Variable("velocity")],
    action=[bwm.Variable("push", bounds=(-1.0, 1.0))],
    time_step=1.0,
)
TRUTH = bwm.KnownDynamics(
    structure=bwm.structures.FromFunction(lambda x, u: x @ A.to(x).mT + u @ B.to(x).mT, schema=SCHEMA, name="pushed"),
    noise={"place": float(NOISE[0]), "velocity": float(NOISE[1])},
    dtype=torch.float64,
)
WALL = HalfSpaces.between(SCHEMA, {"place": (None, 1.0)})
BEHIND = Objective(stage=lambda x, *_: (x[..., 0] - 2.0) ** 2, terminal=lambda x, *_: (x[..., 0] - 2.0) ** 2)
# particles and spread of each search, from what the one before found
COARSE = tuple((300, s) for s in (0.5, 0.2, 0.1, 0.05, 0.02))


def exact(_worlds: object, state: Tensor, actions: Tensor, **_: Any) -> Predictive:
    """The law of each step, exactly."""
    mean, covariance = state, torch.zeros(2, 2).double()
    laws: list[MultivariateGaussian] = []
    for t in range(actions.shape[-2]):
        mean = mean @ A.mT + actions[..., t, :] @ B.mT
        covariance = A @ covariance @ A.mT + NOISE.square().diag()
        tril = torch.linalg.cholesky(covariance)
        laws.append(MultivariateGaussian(mean[None, None], tril.expand(1, 1, *mean.shape, 2)))
    one = torch.zeros(1).double()
    return Predictive(SCHEMA.state, laws, one, exhaustive=True, time_step=1.0, resolved=[True] * len(laws))


def to_the_wall(constraint: Constraint, searches: Sequence[tuple[int, float]], *, seed: int) -> Plan:
    """Search in smaller and smaller neighbourhoods."""
    g, plan = make_generator(seed), None
    for particles, spread in searches:
        many = particles > 5000
        planner = CEM(
            BEHIND,
            horizon=STEPS,
            particles=particles,
            constraints=[constraint],
            samples=60 if many else 200,
            elites=10 if many else 20,
            iterations=12 if many else 15,
            spread=spread,
        )
        plan = planner.plan(TRUTH, START, generator=g, previous=plan, done=0)
    assert plan is not None
    return plan


def percent(values: Tensor) -> str:
    return " ".join(f"{100 * v:5.2f}" for v in values.flatten().tolist())


def wall(seed: int) -> None:
    print(
        f"\nwall, open loop, {RUNS} runs; 5 % +- 4 standard errors is {percent(P + 4 * ERROR * torch.tensor([-1, 1]))}"
    )
    print(f"{'':34} {'% at each step':>40} {'% any':>6}  kept  CPU s")
    fine = ((20_000, 0.03), (20_000, 0.02), (20_000, 0.01))
    sharp = tuple((1, s) for s in (0.5, 0.2, 0.1, 0.05, 0.02))
    ways = {
        "per step, Gaussian, exact moments": (ChanceConstraint(WALL, by=GaussianTightening(exact)), sharp),
        "per step, Gaussian, 20,000 part.": (ChanceConstraint(WALL, by=GaussianTightening()), (*COARSE, *fine)),
        "per step, 20,000 particles": (ChanceConstraint(WALL), (*COARSE, *fine)),
        "per step, same, Wilson 95 %": (ChanceConstraint(WALL, by=FromParticles(Wilson())), (*COARSE, *fine)),
        "jointly, Boole, exact moments": (
            ChanceConstraint(WALL, jointly=True, by=GaussianTightening(exact)),
            sharp,
        ),
        "jointly, 20,000 particles": (ChanceConstraint(WALL, jointly=True), (*COARSE, *fine)),
        "jointly, one-sided tube, 20,000": (ChanceConstraint(WALL, jointly=True, by=InsideTube()), (*COARSE, *fine)),
    }
    for name, (constraint, searches) in ways.items():
        began = time.process_time()
        plan = to_the_wall(constraint, searches, seed=seed)
        spent = time.process_time() - began
        found = plan.violation(generator=make_generator(seed + 1000), particles=RUNS, worlds=TRUTH.draw(1))[0]
        rate, jointly = found.by_step.value, found.jointly.value
        if constraint.jointly:
            kept = bool(jointly <= P + 4 * ERROR) and ("tube" not in name or bool(jointly >= 0.03))
        else:
            kept = bool((rate <= P + 4 * ERROR).all() & (rate[1:] >= P - 4 * ERROR).all())
        print(f"{name:34} {percent(rate):>40} {percent(jointly):>6}  {kept!s:5} {spent:5.0f}", flush=True)


def closed_loop(seed: int, *, steps: int = 8) -> None:
    """All runs at once: the starts of one batch."""
    g = make_generator(seed)
    constraint = ChanceConstraint(WALL, by=GaussianTightening(exact))
    planner = CEM(BEHIND, horizon=2, particles=1, constraints=[constraint], samples=50, elites=8, iterations=15)
    state, true, plan = START.expand(RUNS, 2), TRUTH.draw(1), None
    rates: list[Tensor] = []
    for _ in range(steps):
        plan = planner.plan(true, state, generator=g, previous=plan)
        state = bwm.rollout(true, state, plan.actions[:, :1], particles=1, generator=g).particles[0, 0, :, 0]
        rates.append((state[:, 0] > 1.0).double().mean())
    found = torch.stack(rates)
    kept = bool((found <= P + 4 * ERROR).all())
    print(f"{'closed loop, Gaussian, exact':34} {percent(found):>40} {'':6}  {kept}", flush=True)


def selection(seeds: int) -> None:
    print(
        f"\nselection: exact rate in % of plans chosen on n particles, mean over {seeds} seeds and the 5 steps at the "
        "wall, and the largest of all"
    )
    sd = exact(None, START, torch.zeros(STEPS, 1).double()).stddev[:, 0]
    for n in (100, 300, 1000, 3000):
        row = []
        for bound in (None, Wilson()):
            rates = []
            for seed in range(seeds):
                plan = to_the_wall(
                    ChanceConstraint(WALL, by=FromParticles(bound)), ((n, 0.5), (n, 0.1), (n, 0.03)), seed=seed
                )
                mean = exact(None, START, plan.actions).mean[:, 0]
                rates.append(torch.special.ndtr((mean - 1.0) / sd)[1:])
            found = torch.stack(rates)
            row.append(f"{100 * found.mean():5.2f} (max {100 * found.max():5.2f})")
        print(f"n = {n:5}: plain {row[0]}, Wilson 95 % {row[1]}", flush=True)


def recorded(truth: bwm.KnownDynamics, *, episodes: int, seed: int) -> bwm.Trajectories:
    """Episodes of 4 s from rest, under torques drawn anew every 0.4 s."""
    g = make_generator(seed)
    start = torch.zeros(episodes, 2).double()
    torque = 2.5 * (2 * torch.rand(episodes, 10, 1, generator=g, dtype=torch.float64) - 1).repeat_interleave(4, 1)
    paths = bwm.rollout(truth, start, torque, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=torque)


def pendulum(seed: int, *, limit: float, starts: int, steps: int = 40) -> None:
    rod = bwm.structures.Pendulum.swing_up()
    truth = bwm.KnownDynamics(structure=rod, noise={"angle": 0.01, "velocity": 0.05}, dtype=torch.float64)
    model = bwm.GaussianProcess(features=128, restarts=1).fit(
        recorded(truth, episodes=6, seed=seed), seed=seed, progress=False
    )
    tip = tip_distance(rod.schema, ["angle"], lengths=[1.0], target=[0.0, 1.0], upright=torch.pi)
    safe = HalfSpaces.between(rod.schema, {"velocity": (-limit, limit)})
    slow = ChanceConstraint(safe, probability=P, steps=5, by=GaussianTightening())
    first = CEM(saturating(tip, 0.5), horizon=16, particles=2, samples=100, elites=10, iterations=4, spread=0.6)
    print(f"\npendulum, GP of 6 episodes, {starts} starts, closed loop of {steps} steps, limit {limit:g} rad/s at 5 %")
    for name, constraints in (("without", []), ("with", [slow])):
        began, g = time.process_time(), make_generator(seed + 1)
        worlds, true = model.draw(16, generator=g).to(torch.float32), truth.draw(1)
        planner = replace(first, constraints=constraints)
        state = 0.1 * torch.randn(starts, 2, generator=g, dtype=torch.float64)
        path, plan, feasible = [state], None, []
        for _ in range(steps):
            plan = planner.plan(worlds, state.float(), generator=g, previous=plan)
            feasible.append(plan.feasible)
            state = bwm.rollout(true, state, plan.actions[:, :1].double(), particles=1, generator=g).particles[
                0, 0, :, 0
            ]
            path.append(state)
        reached = torch.stack(path[1:], 1)
        over = reached[..., 1].abs() > limit
        rewards = torch.exp(-0.5 * (tip(reached) / 0.5).square()).sum(1)
        by_step = over.double().mean(0)
        print(
            f"{name:8}: steps over the limit {percent(over.double().mean())} %, worst step {percent(by_step.max())} %, "
            f"episodes {percent(over.any(1).double().mean())} %; top speed {reached[..., 1].abs().max():.2f}, "
            f"mean return {rewards.mean():.2f} (sd {rewards.std():.2f}), plans that keep it "
            f"{percent(torch.stack(feasible).double().mean())} %, {time.process_time() - began:.0f} CPU s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", default=["wall", "selection", "pendulum"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10, help="of the selection")
    parser.add_argument("--starts", type=int, default=20, help="of the pendulum")
    parser.add_argument("--limit", type=float, default=5.0, help="of the pendulum's speed, in rad/s")
    given = parser.parse_args()
    set_up()
    print(f"chance constraints; {machine()}")
    if "wall" in given.part:
        wall(given.seed)
        closed_loop(given.seed)
    if "selection" in given.part:
        selection(given.seeds)
    if "pendulum" in given.part:
        pendulum(given.seed, limit=given.limit, starts=given.starts)


if __name__ == "__main__":
    main()
