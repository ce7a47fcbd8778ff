"""A step of stochastic variational inference on the linear posterior (D = 56, 200 rows), beside Pyro.

The peer's script fits Pyro's AutoDiagonalNormal, un-jitted and jitted, by Adam with one particle, in float32. Ours is
the same model as a ``Joint`` with AutoNormal, one particle, torch's Adam, in float64, its likelihood written out in
plain torch, and once by ``torch.distributions.Normal``, as Pyro has it. Both in processes of their own and in turn, one
thread, CPU seconds. Ours averages the last quarter of the steps and checks each for finite numbers; its figure is the
whole ``SVI.infer`` of 2,000 steps, starts, draws and Pareto k included.
"""

import math
import sys
import warnings
from collections.abc import Mapping

import torch
from peers import own_lines, peer_lines
from sampling_problems import linear_data
from timing import cpu_median, emit, machine, median_of, set_up
from torch import Tensor
from torch.distributions import HalfNormal, Normal

from bayeswm.base.random import make_generator
from bayeswm.inference import SVI, AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal, Joint

ROWS, COLUMNS, STEPS, ROUNDS = 200, 7, 2000, 3
CASES = {
    "AutoNormal, 1 particle": (AutoNormal(), 1),
    "AutoNormal, 8 particles": (AutoNormal(), 8),
    "AutoNormal (1 particle), by Normal": (AutoNormal(), 1),
    "AutoMultivariateNormal, 1 particle": (AutoMultivariateNormal(), 1),
    "AutoMultivariateNormal, 8 particles": (AutoMultivariateNormal(), 8),
    "AutoLowRankMultivariateNormal, 1 particle": (AutoLowRankMultivariateNormal(), 1),
    "AutoLowRankMultivariateNormal, 8 particles": (AutoLowRankMultivariateNormal(), 8),
}


def joint(*, by_law: bool) -> Joint:
    """The peers' linear problem: seven columns from seven, weights and noise unknown."""
    x, y = (torch.from_numpy(a).double() for a in linear_data())
    constant = 0.5 * COLUMNS * math.log(2 * math.pi)

    def log_likelihood(values: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
        inputs, seen = (x, y) if rows is None else (x[rows], y[rows])
        mean, scale = inputs @ values["W"], values["s"][:, None]
        if by_law:
            return Normal(mean, scale, validate_args=False).log_prob(seen).sum(-1)
        return -0.5 * ((seen - mean) / scale).square().sum(-1) - scale.log().sum(-1) - constant

    laws = {"W": Normal(torch.zeros(COLUMNS, COLUMNS), 1.0), "s": HalfNormal(torch.ones(COLUMNS))}
    return Joint(laws, log_likelihood, terms=ROWS)


def own() -> None:
    set_up()
    warnings.simplefilter("ignore")  # what a law with one particle misses is not the question here
    for name, (guide, particles) in CASES.items():
        problem = joint(by_law=name.endswith("by Normal"))
        settings = SVI(guide=guide, steps=STEPS, particles=particles, learning_rate=0.01, draws=100)

        def fit(settings: SVI = settings, problem: Joint = problem) -> None:
            settings.infer(problem, generator=make_generator(0))

        emit(name, cpu_median(fit, repeats=3, steps=STEPS))


def compare() -> None:
    set_up()
    print(f"SVI step, linear D = 56, {ROWS} rows; {machine()}")
    theirs: list[dict] = []
    ours: list[dict] = []
    for _ in range(ROUNDS):
        # the script goes on to a network after its two lines on this posterior
        theirs += peer_lines("bench_nuts_pyro.py", "svi", until=lambda line: "JitTrace" in str(line["config"]))
        ours += own_lines(__file__)
    plain, jitted = (
        median_of(theirs, f"linear D=56 N=200 AutoDiagonalNormal {name}") for name in ("Trace_ELBO", "JitTrace_ELBO")
    )
    print(f"  Pyro, AutoDiagonalNormal, 1 particle: un-jitted {1e3 * plain:.2f} ms, jitted {1e3 * jitted:.2f} ms")
    for name in CASES:
        seconds = median_of(ours, name)
        ratios = f"ratio {plain / seconds:5.2f}, to jitted {jitted / seconds:5.2f}"
        print(f"  bayeswm, {name:42s} {1e3 * seconds:6.2f} ms   {ratios}")


if __name__ == "__main__":
    own() if "--own" in sys.argv[1:] else compare()
