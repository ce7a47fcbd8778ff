"""Planners alone, receding horizon on the true system, batched over starts that are the same for all planners.

* Gymnasium's cart-pole with a continuous force, 200 steps, reward cos(angle) - 0.01 position^2 of the state after each
  step, no termination. Published (Wang et al. 2019): CEM 199.9 +- 0.1, random shooting 200.0.
* Gymnasium's Pendulum-v1, 200 steps, 600 sequences a step, the environment's return.
"""

import argparse
import time
from collections.abc import Callable

import torch
from timing import machine, set_up
from torch import Tensor

from bayeswm import KnownDynamics
from bayeswm.base.random import make_generator, uniform
from bayeswm.base.structure import Structure
from bayeswm.planning import CEM, ICEM, MPPI, Objective, Plan, Planner, RandomShooting, frozen
from bayeswm.structures import CartPole, Pendulum

STEPS = 200


def balance(x: Tensor) -> Tensor:
    return 0.01 * x[..., 0].square() - torch.cos(x[..., 2])


CART_POLE = Objective(
    stage=lambda x, u, c, t: torch.where(t == 0, 0.0, balance(x)),  # noqa: ARG005
    terminal=lambda x, c: balance(x),  # noqa: ARG005
)


def swing(x: Tensor, u: Tensor) -> Tensor:
    angle = torch.remainder(x[..., 0] + torch.pi, 2 * torch.pi) - torch.pi
    return angle.square() + 0.1 * x[..., 1].square() + 0.001 * u[..., 0].square()


PENDULUM = Objective(stage=lambda x, u, c, t: swing(x, u))  # noqa: ARG005


def returns(
    planner: Planner, structure: Structure, start: Tensor, *, reward: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Sum of reward(state, action, next state) from each start."""
    worlds = KnownDynamics(structure=structure, dtype=torch.float32).draw(1)
    step, generator = frozen(worlds), make_generator(1)
    x, total = start, torch.zeros(len(start))
    plan: Plan | None = None
    for _ in range(STEPS):
        plan = planner.plan(worlds, x, generator=generator, previous=plan)
        after = step(x, plan.action)
        total += reward(x, plan.action, after)
        x = after
    return total


def main(starts: int) -> None:
    print(f"planners alone, {starts} starts, {STEPS} steps; {machine()}")
    generator = make_generator(0)
    carts = 0.1 * uniform((starts, 4), generator) - 0.05
    hanging = (2 * uniform((starts, 2), generator) - 1) * torch.tensor([torch.pi, 1.0])
    print("  cart-pole, cos(angle) - 0.01 position^2")
    for planner in (
        CEM(CART_POLE, horizon=15, samples=100, elites=10, iterations=3),
        ICEM(CART_POLE, horizon=15, samples=120, elites=10, iterations=3),
        MPPI(CART_POLE, horizon=15, samples=300),
        RandomShooting(CART_POLE, horizon=15, samples=300),
    ):
        began = time.process_time()
        total = returns(planner, CartPole.gymnasium(), carts, reward=lambda x, u, after: -balance(after))  # noqa: ARG005
        show(planner, total, began)
    print("  Pendulum-v1")
    for planner in (
        CEM(PENDULUM, horizon=20, samples=120, elites=12, iterations=5),
        ICEM(PENDULUM, horizon=20, samples=200, elites=20, iterations=4),
        MPPI(PENDULUM, horizon=20, samples=600),
        MPPI(PENDULUM, horizon=20, samples=600, smooth=True),
        RandomShooting(PENDULUM, horizon=20, samples=600),
    ):
        began = time.process_time()
        total = returns(planner, Pendulum.gymnasium(), hanging, reward=lambda x, u, after: -swing(x, u))  # noqa: ARG005
        show(planner, total, began)


def show(planner: Planner, total: Tensor, began: float) -> None:
    name = type(planner).__name__ + (", smooth" if isinstance(planner, MPPI) and planner.smooth else "")
    error, seconds = float(total.std()) / len(total) ** 0.5, time.process_time() - began
    print(
        f"    {name:16s} {total.mean():8.2f} +- {error:.2f}   lowest {total.min():8.2f}   {seconds:.0f} s", flush=True
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=50)
    set_up()
    main(parser.parse_args().starts)
