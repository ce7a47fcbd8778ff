"""Planning speed on one thread, beside pytorch-mppi and mbrl-lib, alternately in one process; medians of CPU time.

* MPPI command, 1,000 samples, horizon 30, float32: on pendulum dynamics and on a network of 2 x 64 tanh units.
  Both sides call the same functions for dynamics and cost; with the network also ours by `frozen_network`.
* CEM, 1,000 samples, 5 iterations, horizon 30: mbrl-lib's optimiser on the same dynamics, which it is handed as an
  objective over whole sequences.
* CEM through an ensemble of 5 networks of two layers of 64 units, 200 sequences x 10 particles x 25 steps x 3
  iterations.

The peers are those of the other benchmarks' environment, in which the program runs itself; with --here it stays
where it is. What is absent is left out.
"""

import argparse
import importlib
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from peers import CLONE, ONE_THREAD, interpreter
from timing import cpu_median, machine, set_up
from torch import Tensor

from bayeswm import KnownDynamics
from bayeswm.base import Schema, Variable
from bayeswm.base.random import make_generator
from bayeswm.base.worlds import StructureWorlds, Worlds
from bayeswm.planning import CEM, MPPI, Objective, Planner
from bayeswm.structures import MLP, FromFunction, Pendulum, frozen_network

SAMPLES, HORIZON, ITERATIONS, ELITES = 1000, 30, 5, 100
STATE = torch.tensor([3.14, 0.0])
LOW, HIGH = torch.tensor([-2.0]), torch.tensor([2.0])


def pendulum(x: Tensor, u: Tensor) -> Tensor:
    """Gymnasium's pendulum as a plain function."""
    angle, speed, torque = x[..., :1], x[..., 1:], u.clamp(-2, 2)
    speed = (speed + (15 * torch.sin(angle) + 3 * torque) * 0.05).clamp(-8, 8)
    return torch.cat((angle + 0.05 * speed, speed), -1)


def network() -> torch.nn.Sequential:
    layers = (torch.nn.Linear(3, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 2))
    return torch.nn.Sequential(*layers).requires_grad_(False)


def by(net: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, u: x + net(torch.cat((x, u.expand(*x.shape[:-1], 1)), -1))


def cost(x: Tensor, u: Tensor) -> Tensor:  # noqa: ARG001
    angle = torch.remainder(x[..., 0] + torch.pi, 2 * torch.pi) - torch.pi
    return angle**2 + 0.1 * x[..., 1] ** 2


OBJECTIVE = Objective(stage=lambda x, u, c, t: cost(x, u))  # noqa: ARG005


def worlds_of(dynamics: Callable[[Tensor, Tensor], Tensor]) -> Worlds:
    # a lambda, since the number of arguments says what is passed
    function = FromFunction(lambda x, u: dynamics(x, u), schema=Pendulum.gymnasium().schema, name="dynamics")
    return KnownDynamics(structure=function, dtype=torch.float32).draw(1)


def in_turn(planner: Planner, worlds: Worlds, state: Tensor) -> Callable[[], None]:
    """Plans one after the other, each beginning with what remains of the last."""
    generator = make_generator(0)
    last = planner.plan(worlds, state, generator=generator)

    def command() -> None:
        nonlocal last
        last = planner.plan(worlds, state, generator=generator, previous=last)

    return command


def peer_mppi(dynamics: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None] | None:
    try:
        peer = importlib.import_module("pytorch_mppi")
    except ImportError:
        return None
    bounds = {"u_min": LOW, "u_max": HIGH}
    sigma = torch.tensor([[1.0]])
    planner = peer.MPPI(dynamics, cost, 2, sigma, num_samples=SAMPLES, horizon=HORIZON, lambda_=1.0, **bounds)
    return lambda: planner.command(STATE)


def peer_cem(dynamics: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None] | None:
    try:
        peer = importlib.import_module("mbrl.planning.trajectory_opt")
    except ImportError:
        return None
    low, high = [[-2.0]] * HORIZON, [[2.0]] * HORIZON
    optimiser = peer.CEMOptimizer(
        ITERATIONS, ELITES / SAMPLES, SAMPLES, low, high, 0.1, torch.device("cpu"), return_mean_elites=True
    )

    def objective(actions: Tensor) -> Tensor:
        x, total = STATE.expand(SAMPLES, 2), torch.zeros(SAMPLES)
        for t in range(HORIZON):
            total = total - cost(x, actions[:, t])
            x = dynamics(x, actions[:, t])
        return total

    begin = torch.zeros(HORIZON, 1)

    def command() -> None:
        nonlocal begin
        found = optimiser.optimize(objective, begin)
        begin = torch.cat((found[1:], found[-1:])).clamp(-1.99, 1.99)

    return command


def ensemble() -> tuple[Worlds, Planner]:
    actions = [Variable(n, bounds=(-1.0, 1.0)) for n in ("u", "v")]
    schema = Schema(state=[Variable(n) for n in ("a", "b", "c", "d")], action=actions, time_step=0.05)
    structure = MLP(hidden=(64, 64)).bind(schema)
    parameters = structure.sample(5, make_generator(0), torch.float32)
    parameters["change_scale"] = 0.05 * parameters["change_scale"]
    objective = Objective(stage=lambda x, u, c, t: x.square().sum(-1) + 0.01 * u.square().sum(-1))  # noqa: ARG005
    planner = CEM(objective, horizon=25, samples=200, elites=20, iterations=3, particles=2)
    return StructureWorlds(structure, schema, parameters, exhaustive=True), planner


def compare(name: str, ways: dict[str, Callable[[], None] | None], rounds: int) -> None:
    """Print the median of each way, and of its ratio to the first, over rounds in which they take turns."""
    present = {k: v for k, v in ways.items() if v is not None}
    times: dict[str, list[float]] = {k: [] for k in present}
    with torch.no_grad():
        for _ in range(rounds):
            for key, way in present.items():

                def five(way: Callable[[], None] = way) -> None:
                    for _ in range(5):
                        way()

                times[key].append(cpu_median(five, repeats=5, steps=5))
    print(f"  {name}")
    first = next(iter(times))
    for key, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(times[first], values, strict=True))
        print(f"    {key:36s} {1e3 * statistics.median(values):7.2f} ms   ratio {ratio:.2f}", flush=True)


def main(rounds: int) -> None:
    print(f"planning, K={SAMPLES}, H={HORIZON}, float32; {machine()}; CPU time, medians of {rounds} rounds in turn")
    torch.manual_seed(0)
    mppi = MPPI(OBJECTIVE, horizon=HORIZON, samples=SAMPLES, temperature=1.0, spread=0.5)
    cem = CEM(OBJECTIVE, horizon=HORIZON, samples=SAMPLES, iterations=ITERATIONS, elites=ELITES)
    structure = KnownDynamics(structure=Pendulum.gymnasium(), dtype=torch.float32).draw(1)
    net = network()
    same, fast = by(net), by(frozen_network(net))
    compare(
        "MPPI command, pendulum",
        {
            "pytorch-mppi": peer_mppi(pendulum),
            "bayeswm, same function": in_turn(mppi, worlds_of(pendulum), STATE),
            "bayeswm, Pendulum.gymnasium()": in_turn(mppi, structure, STATE),
        },
        rounds,
    )
    compare(
        "MPPI command, 2 x 64 tanh",
        {
            "pytorch-mppi": peer_mppi(same),
            "bayeswm, same function": in_turn(mppi, worlds_of(same), STATE),
            "bayeswm, frozen_network": in_turn(mppi, worlds_of(fast), STATE),
        },
        rounds,
    )
    compare(
        "CEM, 5 iterations, pendulum",
        {"mbrl-lib": peer_cem(pendulum), "bayeswm, same function": in_turn(cem, worlds_of(pendulum), STATE)},
        rounds,
    )
    members, planner = ensemble()
    compare(
        "CEM, ensemble 5 x 2 x 64, 200 x 10 x 25 x 3",
        {"bayeswm": in_turn(planner, members, torch.zeros(4))},
        rounds,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--here", action="store_true", help="run in this environment, with the peers that it has")
    arguments = parser.parse_args()
    python = None if arguments.here else interpreter()
    if python is not None:
        command = [str(python), "-W", "ignore", __file__, "--here", "--rounds", str(arguments.rounds)]
        sys.exit(
            subprocess.run(command, env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(CLONE)}, check=False).returncode
        )
    logging.disable(logging.CRITICAL)
    set_up()
    main(arguments.rounds)
