"""NumPyro's and blackjax's NUTS on the posteriors of ``hmc_sampling.py``: one chain, 300 iterations of warm-up.

``nuts_jax.py NAME`` prints one JSON line for each of both, with and without compilation. How many draws 2,000 effective
ones take is found by a trial run that does not count.
"""

import math
import os
import sys
import time
import warnings
from collections.abc import Callable

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import initialize_model
from sampling_problems import GOAL, SUBSTEPS, linear_data, posteriordb, smallest_ess
from timing import emit

WARMUP, DEPTH, TRIAL = 300, 8, 500
Start = dict[str, jax.Array]


def linear() -> tuple[Callable[[], None], Start]:
    x, y = map(jnp.asarray, linear_data())

    def model() -> None:
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([7, 7]).to_event(2))
        s = numpyro.sample("s", dist.HalfNormal(1.0).expand([7]).to_event(1))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Normal(x @ w, s).to_event(1), obs=y)

    return model, {"w": jnp.zeros((7, 7)), "s": jnp.ones(7)}


def eight_schools() -> tuple[Callable[[], None], Start]:
    data = posteriordb("eight schools")
    y, sigma = (jnp.asarray(data[k], dtype=float) for k in ("y", "sigma"))

    def model() -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        theta = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
        with numpyro.plate("schools", 8):
            numpyro.sample("y", dist.Normal(mu + tau * theta, sigma), obs=y)

    return model, {"mu": jnp.array(0.0), "tau": jnp.array(5.0), "theta_trans": jnp.zeros(8)}


def lotka_volterra() -> tuple[Callable[[], None], Start]:
    data = posteriordb("lotka-volterra")
    y = jnp.asarray([data["y_init"], *data["y"]], dtype=float)
    location, scale = jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05])
    h = 1 / SUBSTEPS

    def model() -> None:
        # a normal law cut off at 0, as in nuts_pyro.py
        theta = numpyro.sample("theta", dist.LogNormal(0.0, 1.0).expand([4]).to_event(1))
        taken_out = dist.LogNormal(0.0, 1.0).log_prob(theta)
        numpyro.factor("prior", (dist.Normal(location, scale).log_prob(theta) - taken_out).sum())
        start = numpyro.sample("z_init", dist.LogNormal(math.log(10.0), 1.0).expand([2]).to_event(1))
        sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))
        own, other = jnp.stack((theta[0], -theta[2])), jnp.stack((-theta[1], theta[3]))

        def rate(w: jax.Array) -> jax.Array:
            return own + other * jnp.exp(w[::-1])

        def year(w: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            for _ in range(SUBSTEPS):
                k1 = rate(w)
                k2 = rate(w + h / 2 * k1)
                k3 = rate(w + h / 2 * k2)
                k4 = rate(w + h * k3)
                w = w + h / 6 * (k1 + 2 * (k2 + k3) + k4)
            return w, w

        first = jnp.log(start)
        path = jnp.concatenate((first[None], jax.lax.scan(year, first, None, length=len(y) - 1)[1]))
        with numpyro.plate("years", len(y)):
            numpyro.sample("y", dist.LogNormal(path, sigma).to_event(1), obs=y)

    return model, {"theta": location, "z_init": jnp.full(2, 10.0), "sigma": jnp.full(2, math.exp(-1))}


def flat(draws: Start) -> np.ndarray:
    return np.concatenate([np.asarray(v, dtype=float).reshape(len(v), -1) for v in draws.values()], 1)[None]


def measure(peer: str, make: Callable[[int], Callable[[int], Start]]) -> None:
    """``make`` returns a program for so many draws, which takes a seed; its first call compiles it."""
    draws = math.ceil(1.1 * GOAL * TRIAL / smallest_ess(flat(make(TRIAL)(0))))
    program = make(draws)
    for config in (f"{peer} with compilation", f"{peer} compiled"):
        began = time.process_time()
        found = jax.block_until_ready(program(1))
        emit(config, time.process_time() - began, ess=smallest_ess(flat(found)), draws=draws)


def run(name: str) -> None:
    model, start = {"linear": linear, "eight schools": eight_schools, "lotka-volterra": lotka_volterra}[name]()
    begin = init_to_value(values=start)

    def by_numpyro(draws: int) -> Callable[[int], Start]:
        kernel = NUTS(model, max_tree_depth=DEPTH, init_strategy=begin)
        sampler = MCMC(kernel, num_warmup=WARMUP, num_samples=draws, progress_bar=False)

        def program(seed: int) -> Start:
            sampler.run(jax.random.PRNGKey(seed))
            return sampler.get_samples()

        return program

    initial, potential, _, __ = initialize_model(jax.random.PRNGKey(0), model, init_strategy=begin)

    def by_blackjax(draws: int) -> Callable[[int], Start]:
        def log_density(z: Start) -> jax.Array:
            return -potential(z)

        @jax.jit
        def program(key: jax.Array) -> Start:
            first, then = jax.random.split(key)
            adaptation = blackjax.window_adaptation(blackjax.nuts, log_density, max_num_doublings=DEPTH)
            (state, found), _ = adaptation.run(first, initial.z, WARMUP)
            settings = {k: v for k, v in found.items() if k != "max_num_doublings"}
            step = blackjax.nuts(log_density, max_num_doublings=DEPTH, **settings).step

            def one(state: object, key: jax.Array) -> tuple[object, Start]:
                state = step(key, state)[0]
                return state, state.position

            return jax.lax.scan(one, state, jax.random.split(then, draws))[1]

        return lambda seed: program(jax.random.PRNGKey(seed))

    measure("numpyro", by_numpyro)
    measure("blackjax", by_blackjax)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(sys.argv[1])
