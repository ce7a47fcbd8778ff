"""Planners on the true system, receding horizon: Pendulum-v1 beside the dynamic-programming optimum, and cart-pole.

Pendulum: 200 starts as Gymnasium draws them (any angle, velocity within 1 rad/s), the same for all planners, 200 steps,
Gymnasium's reward. Printed: mean return, the mean shortfall from the optimum with its standard error (paired), and how
long a plan for all starts together takes. LQR starts in the upright basin only and is compared there.

Cart-pole (Wang et al. 2019, Benchmarking model-based reinforcement learning): reward cos(angle) - 0.01 x^2 on the
physics of Gymnasium with a continuous force, 200 steps, no termination; 20 starts. Published: CEM 199.9 +- 0.1, random
shooting 200.0.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch
from dynamic_programming import Grid, Optimum
from torch import Tensor

import bayeswm as bwm
from bayeswm.planning import CEM, ICEM, ILQR, LQR, MPPI, Gradient, Objective, Planner, RandomShooting
from bayeswm.structures import CartPole, Pendulum

STEPS = 200


def wrapped(angle: Tensor) -> Tensor:
    """The angle from upright, within half a turn."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def pendulum_cost(state: Tensor, action: Tensor, context: Tensor, step: Tensor) -> Tensor:  # noqa: ARG001
    """Negative reward of Gymnasium's Pendulum-v1."""
    return wrapped(state[..., 0]).square() + 0.1 * state[..., 1].square() + 0.001 * action[..., 0].square()


def balance_cost(state: Tensor, action: Tensor, context: Tensor, step: Tensor) -> Tensor:  # noqa: ARG001
    """Negative reward of the balancing task."""
    return 0.01 * state[..., 0].square() - torch.cos(state[..., 2])


def run(
    planner: Planner,
    system: bwm.Worlds,
    starts: Tensor,
    *,
    reward: Callable[[Tensor, Tensor], Tensor],
    seed: int = 0,
) -> tuple[Tensor, float]:
    """Return what each start collects, and the seconds of a plan."""
    g = torch.Generator().manual_seed(seed)
    state, total, plan, began = starts, torch.zeros(len(starts)), None, time.process_time()
    for _ in range(STEPS):
        plan = planner.plan(system, state, generator=g, previous=plan)
        total += reward(state, plan.action)
        state = system.transition(system.start(state), plan.action).mean[0, 0]
    return total, (time.process_time() - began) / STEPS


def pendulum(count: int, chosen: list[str]) -> None:
    """Print the table of the pendulum."""
    system = bwm.KnownDynamics(structure=Pendulum.gymnasium()).draw(1).to(torch.float32)
    g = torch.Generator().manual_seed(1)  # not those that the horizons were chosen on
    draws = torch.rand(count, 2, generator=g)
    starts = torch.stack((2 * math.pi * draws[:, 0] - math.pi, 2 * draws[:, 1] - 1), -1)

    def reward(state: Tensor, action: Tensor) -> Tensor:
        return -pendulum_cost(state, action, state, state)

    best = Optimum(
        system,
        lambda x, u, _: reward(x, u),
        Grid(speed=8.0, torque=2.0),
        steps=STEPS,
    )
    optimum = best.returns(starts)
    print(f"optimum {optimum.mean():8.2f} +- {optimum.std() / count**0.5:.2f}", flush=True)
    objective = Objective(stage=pendulum_cost)
    planners: dict[str, Planner] = {
        "CEM": CEM(objective, horizon=18, samples=120, elites=12, iterations=5),
        "iCEM": ICEM(objective, horizon=40, samples=200, elites=20, iterations=4),
        "MPPI": MPPI(objective, horizon=20, samples=600),
        "smooth MPPI": MPPI(objective, horizon=20, samples=600, smooth=True),
        "gradient": Gradient(objective, horizon=20, restarts=8, iterations=10),
        "random shooting": RandomShooting(objective, horizon=18, samples=600),
        "iLQR": ILQR(objective, horizon=40, restarts=4, iterations=5),
        "LQR": LQR(objective, horizon=40),
    }
    for name, planner in planners.items():
        if chosen and name not in chosen:
            continue
        at, bound = starts, optimum
        if name == "LQR":
            at = 0.1 * (2 * draws - 1)
            bound = best.returns(at)
        total, seconds = run(planner, system, at, reward=reward)
        short = bound - total
        print(
            f"{name:16} return {total.mean():8.2f}  below the optimum {short.mean():7.2f} +- "
            f"{short.std() / count**0.5:5.2f}  worst {short.max():7.2f}  {1e3 * seconds:7.1f} ms CPU for all starts",
            flush=True,
        )


def cart_pole(count: int, chosen: list[str]) -> None:
    """Print the table of the cart-pole."""
    system = bwm.KnownDynamics(structure=CartPole.gymnasium()).draw(1).to(torch.float32)
    starts = 0.1 * torch.rand(count, 4, generator=torch.Generator().manual_seed(0)) - 0.05
    objective = Objective(stage=balance_cost)
    planners: dict[str, Planner] = {
        "CEM": CEM(objective, horizon=30, samples=200, elites=20, iterations=3),
        "iCEM": ICEM(objective, horizon=30, samples=200, iterations=3),
        "MPPI": MPPI(objective, horizon=30, samples=600),
        "smooth MPPI": MPPI(objective, horizon=30, samples=600, smooth=True),
        "random shooting": RandomShooting(objective, horizon=30, samples=1000),
    }
    for name, planner in planners.items():
        if chosen and name not in chosen:
            continue
        total, _ = run(planner, system, starts, reward=lambda x, u: -balance_cost(x, u, x, x))
        print(f"cart-pole, {name:16} return {total.mean():7.2f}  least {total.min():7.2f}", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--planners", nargs="*", default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    pendulum(args.starts, args.planners)
    cart_pole(min(20, args.starts), args.planners)


if __name__ == "__main__":
    main()
