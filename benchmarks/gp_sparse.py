"""A sparse Gaussian process on 5,000 and 20,000 pendulum steps beside an exact one on 1,000 of them.

In process CPU seconds on one thread; each number of steps has a process of its own, for its peak memory. ``surprise``
is the negative log density of held-out next states, in nats a step and variable; the true system's can be reached.
"""

import argparse
import json
import resource
import sys
import time

import torch
from peers import lines
from timing import machine, set_up

import bayeswm as bwm
from bayeswm.base.random import make_generator, standard_normal, uniform

TRUTH = bwm.KnownDynamics(
    structure=bwm.structures.Pendulum(length=0.5, damping=0.05, time_step=0.05), noise=[0.01, 0.05]
)
LIGHTER = bwm.structures.Pendulum(length=0.5, mass=0.7, time_step=0.05)
STEPS = 50


def simulate(episodes: int, seed: int) -> bwm.Trajectories:
    """Episodes of the true pendulum under random torques."""
    g = make_generator(seed)
    start = standard_normal((episodes, 2), g, dtype=torch.float64) * torch.tensor([3.0, 1.0], dtype=torch.float64)
    actions = 2 * uniform((episodes, STEPS, 1), g, dtype=torch.float64) - 1
    paths = bwm.rollout(TRUTH, start, actions, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(TRUTH.schema, state=torch.cat((start[:, None], paths), 1), action=actions)


def own(steps: int) -> None:
    train, test = simulate(steps // STEPS, 0), simulate(40, 1).transitions()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kernel in (bwm.inference.RBF(), bwm.inference.Matern(nu=2.5)):
        began = time.process_time()
        model = bwm.GaussianProcess(mean=LIGHTER, kernel=kernel).fit(train, progress=False)
        seconds = time.process_time() - began
        p = model.posterior(test.state, test.action)
        truth = TRUTH.predictive(test.state, test.action).mean[:, 0]
        noise = torch.tensor([0.01, 0.05], dtype=torch.float64)

        def surprise(mean: torch.Tensor, scale: torch.Tensor) -> list[float]:
            return (-torch.distributions.Normal(mean, scale).log_prob(test.next_state).mean(0)).tolist()

        found = surprise(p.mean, (p.variance + model.hyper.noise.square()).sqrt())
        best = surprise(truth, noise.expand_as(truth))
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        line = {"config": f"{steps} {kernel!r}", "seconds": seconds, "memory": memory, "best": best, "surprise": found}
        print(json.dumps(line | {"inducing": 0 if model.inducing is None else model.inducing.shape[1]}), flush=True)


def compare() -> None:
    print(f"sparse GP, pendulum with a mass 30 % too small, 2 outputs, 4 inputs; {machine()}")
    for steps in (1000, 5000, 20_000):
        for line in lines([sys.executable, __file__, "--own", str(steps)]):
            kind = f"{line['inducing']} inducing points" if line["inducing"] else "exact"
            print(
                f"  {line['config']:22s} {kind:20s} {line['seconds']:7.1f} s  {line['memory']:6.0f} MB more   surprise "
                f"{' '.join(f'{v:+.4f}' for v in line['surprise'])}  (truth "
                f"{' '.join(f'{v:+.4f}' for v in line['best'])})",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--own", type=int, help="fit so many steps and print JSON lines")
    arguments = parser.parse_args()
    set_up()
    compare() if arguments.own is None else own(arguments.own)
