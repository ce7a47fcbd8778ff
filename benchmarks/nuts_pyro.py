"""Pyro's NUTS on the posteriors of ``hmc_sampling.py``: one chain, until its worst quantity has 2,000 effective draws.

``nuts_pyro.py NAME model|jit|potential [SECONDS]`` prints one JSON line. ``model`` and ``jit`` take the posterior
written in Pyro; ``potential`` gives NUTS our own log density, so that no effect handler runs and only the tree code is
left.
"""

import contextlib
import math
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_value
from sampling_problems import GOAL, SUBSTEPS, linear_data, posteriordb, smallest_ess
from timing import emit, set_up
from torch import Tensor

# on Lotka-Volterra an iteration takes half a second
WARMUP = {"linear": 300, "eight schools": 300, "lotka-volterra": 100}
DEPTH, EVERY, MOST = 8, 50, 100_000


class EnoughError(Exception):
    """Pyro's hook has no other way to end a run."""


def linear() -> tuple[Callable[[], None], dict[str, Tensor]]:
    x, y = (torch.from_numpy(a) for a in linear_data())

    def model() -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([7, 7]).to_event(2))
        s = pyro.sample("s", dist.HalfNormal(1.0).expand([7]).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(x @ w, s).to_event(1), obs=y)

    return model, {"w": torch.zeros(7, 7), "s": torch.ones(7)}


def eight_schools() -> tuple[Callable[[], None], dict[str, Tensor]]:
    data = posteriordb("eight schools")
    y, sigma = (torch.tensor(data[k], dtype=torch.float32) for k in ("y", "sigma"))

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        theta = pyro.sample("theta_trans", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
        with pyro.plate("schools", 8):
            pyro.sample("y", dist.Normal(mu + tau * theta, sigma), obs=y)

    return model, {"mu": torch.tensor(0.0), "tau": torch.tensor(5.0), "theta_trans": torch.zeros(8)}


def lotka_volterra() -> tuple[Callable[[], None], dict[str, Tensor]]:
    data = posteriordb("lotka-volterra")
    y = torch.tensor([data["y_init"], *data["y"]], dtype=torch.float32)
    location, scale = torch.tensor([1.0, 0.05, 1.0, 0.05]), torch.tensor([0.5, 0.05, 0.5, 0.05])
    h = 1 / SUBSTEPS

    def model() -> None:
        # a normal law cut off at 0: Pyro has none, so another one is sampled and taken out again
        theta = pyro.sample("theta", dist.LogNormal(0.0, 1.0).expand([4]).to_event(1))
        taken_out = dist.LogNormal(0.0, 1.0).log_prob(theta)
        pyro.factor("prior", (dist.Normal(location, scale).log_prob(theta) - taken_out).sum())
        start = pyro.sample("z_init", dist.LogNormal(math.log(10.0), 1.0).expand([2]).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))
        own, other = torch.stack((theta[0], -theta[2])), torch.stack((-theta[1], theta[3]))

        def rate(w: Tensor) -> Tensor:
            return own + other * w.flip(0).exp()

        w = start.log()
        path = [w]
        for _ in range(len(y) - 1):
            for _ in range(SUBSTEPS):
                k1 = rate(w)
                k2 = rate(w + h / 2 * k1)
                k3 = rate(w + h / 2 * k2)
                k4 = rate(w + h * k3)
                w = w + h / 6 * (k1 + 2 * (k2 + k3) + k4)
            path.append(w)
        with pyro.plate("years", len(y)):
            pyro.sample("y", dist.LogNormal(torch.stack(path), sigma).to_event(1), obs=y)

    return model, {"theta": location, "z_init": torch.full((2,), 10.0), "sigma": torch.full((2,), math.exp(-1))}


def run(name: str, way: str, limit: float) -> None:
    """Sample until the goal, or until that has taken so many CPU seconds; counting effective draws costs nothing."""
    model, start = {"linear": linear, "eight schools": eight_schools, "lotka-volterra": lotka_volterra}[name]()
    initial = None
    if way == "potential":
        from hmc_sampling import problem  # ours, in float64

        posterior = problem(name)
        kernel = NUTS(potential_fn=lambda p: -posterior.log_density(p["x"][None])[0], max_tree_depth=DEPTH)
        initial = {"x": posterior.flat.unconstrain({k: v.double() for k, v in start.items()})}
    else:
        strategy = init_to_value(values=start)
        kernel = NUTS(
            model, max_tree_depth=DEPTH, init_strategy=strategy, jit_compile=way == "jit", ignore_jit_warnings=True
        )
    draws: list[np.ndarray] = []
    warm, counted, found = 0.0, 0.0, float("nan")
    began = time.process_time()

    def hook(_: object, params: dict[str, Tensor], stage: str, __: int) -> None:
        nonlocal warm, counted, found
        if stage != "Sample":
            warm = time.process_time() - began
            return
        draws.append(torch.cat([v.detach().flatten() for v in params.values()]).numpy())
        if len(draws) % EVERY == 0:
            before = time.process_time()
            found = smallest_ess(np.stack(draws)[None])
            counted += time.process_time() - before
            if found >= GOAL or before - began - warm - counted > limit:
                raise EnoughError

    pyro.set_rng_seed(0)
    sampler = MCMC(kernel, MOST, warmup_steps=WARMUP[name], initial_params=initial, hook_fn=hook, disable_progbar=True)
    with contextlib.suppress(EnoughError):
        sampler.run()
    seconds = time.process_time() - began - counted
    emit(f"pyro {way}", seconds, ess=found, draws=len(draws), warmup_s=warm)


if __name__ == "__main__":
    set_up()
    warnings.simplefilter("ignore")
    run(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else math.inf)
