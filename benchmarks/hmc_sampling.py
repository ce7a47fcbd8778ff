"""Effective draws for a CPU second by HMC, beside Pyro's NUTS, NumPyro and blackjax, on three posteriors.

Each run begins with its warm-up and ends at about 2,000 effective draws of the worst quantity; CPU seconds of the whole
run count, and ArviZ counts the effective draws on all sides. One thread, runs in processes of their own and in turn.
The densities are the same: ours in plain torch on (chains, D), the peers' as models in their own language
(``nuts_pyro.py``, ``nuts_jax.py``). Differences of the work:

* Ours is in float64, the peers' in float32, their default.
* NUTS has one chain, 300 iterations of warm-up (Pyro on Lotka-Volterra 100) and trees of depth 8 at most; HMC has
  many chains. NUTS begins at the priors' centre, HMC at draws from the prior.
* NumPyro and blackjax are shown with and without their compilation.
* Pyro's sampling ends after ``--limit`` CPU seconds; where it has fewer than 2,000 effective draws by then, its cost at
  2,000 is its warm-up and as much more sampling as these take at the same rate.
"""

import argparse
import math
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
from peers import interpreter, lines
from sampling_problems import DATA, GOAL, NAMES, linear_data, smallest_ess
from timing import emit, machine, set_up

from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, Unconstrained

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.inference.posteriors import POSTERIORS, Posterior

# enough for 2,000 effective draws; many chains share the cost of the warm-up
SHORT = {
    "linear": HMC(chains=64, warmup=60, draws=60),
    "eight schools": HMC(chains=128, warmup=60, draws=60),
    "lotka-volterra": HMC(chains=64, warmup=60, draws=60),
}
HERE = Path(__file__).resolve().parent


def linear() -> Posterior:
    x, y = (torch.from_numpy(a).double() for a in linear_data())
    normal, half = torch.distributions.Normal(torch.zeros(7, 7), 1.0), torch.distributions.HalfNormal(torch.ones(7))
    flat = Unconstrained({"w": normal, "s": half})

    def log_joint(v: dict[str, torch.Tensor]) -> torch.Tensor:
        # all chains' weights side by side: one product
        mean = (x @ v["w"].movedim(-2, 0).flatten(1)).view(len(x), *v["s"].shape)
        squares = (y.view(len(x), *(1,) * (v["s"].ndim - 1), 7) - mean).square().sum(0)
        return flat.log_prior(v) - (0.5 * squares / v["s"].square() + len(x) * v["s"].log()).sum(-1)

    return Posterior(flat, log_joint, {})


def problem(name: str) -> Posterior:
    return linear() if name == "linear" else POSTERIORS[name](DATA)


def own(name: str, *, seed: int) -> None:
    posterior = problem(name)
    warnings.simplefilter("ignore")
    for config, settings in (("short", SHORT[name]), ("default", HMC())):
        # imports and first calls do not count
        HMC(chains=2, warmup=20, draws=8).sample(
            posterior.log_density, posterior.flat.sample(8, make_generator(0)), generator=make_generator(0)
        )
        generator = make_generator(seed)
        began = time.process_time()
        start = posterior.flat.sample(4 * settings.chains, generator)
        drawn = settings.sample(posterior.log_density, start, generator=generator)
        seconds = time.process_time() - began
        worst = float(drawn.r_hat.max())
        emit(f"hmc {config}", seconds, ess=smallest_ess(drawn.positions.numpy()), r_hat=worst)


def _cost(line: dict) -> float:
    """CPU seconds of an effective draw; a run that ended early is continued at its own rate."""
    if line["ess"] >= GOAL or "warmup_s" not in line:
        return line["cpu_median_s"] / line["ess"]
    return line["warmup_s"] / GOAL + (line["cpu_median_s"] - line["warmup_s"]) / line["ess"]


def rate(found: list[dict], config: str) -> tuple[float, float, float]:
    """Median milliseconds of an effective draw, CPU seconds and effective draws of a configuration."""
    chosen = [line for line in found if line["config"] == config]
    if not chosen:
        return math.nan, math.nan, math.nan
    each = [1e3 * _cost(line) for line in chosen]
    seconds, ess = (statistics.median(line[k] for line in chosen) for k in ("cpu_median_s", "ess"))
    return statistics.median(each), seconds, ess


def compare(rounds: int, limit: float) -> None:
    print(f"sampling until {GOAL} effective draws of the worst quantity; {machine()}", flush=True)
    ours, jax = sys.executable, interpreter()
    for name in NAMES:
        found: list[dict] = []
        for r in range(rounds):
            found += lines([ours, __file__, "--own", name, "--seed", str(r)])
            # tracing the steps of Lotka-Volterra takes longer than sampling
            for way in ("model", "potential") if name == "lotka-volterra" else ("jit", "model", "potential"):
                # a run takes minutes, and one of each way says enough
                if r == 0:
                    found += lines([ours, str(HERE / "nuts_pyro.py"), name, way, str(limit)])
            if jax is not None:
                found += lines([str(jax), "-W", "ignore", str(HERE / "nuts_jax.py"), name])
            found += lines([ours, __file__, "--own", name, "--seed", str(rounds + r)])
        reference = rate(found, "hmc short")[0]
        print(f"  {name}")
        for config in dict.fromkeys(str(line["config"]) for line in found):
            each, seconds, ess = rate(found, config)
            print(
                f"    {config:26s} {seconds:8.2f} s {ess:7.0f} effective  {each:9.3f} ms each   "
                f"{each / reference:8.1f} times HMC's short run",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--own", choices=NAMES, help="run our side of one posterior only and print JSON lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=float, default=150.0, help="CPU seconds of a run of Pyro at most")
    arguments = parser.parse_args()
    set_up()
    if arguments.own:
        own(arguments.own, seed=arguments.seed)
    else:
        compare(arguments.rounds, arguments.limit)
