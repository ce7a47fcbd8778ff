"""Mean and variance of an exact Gaussian process at 1,000 points, 500 training points, 4 outputs, beside GPyTorch.

Both run in processes of their own, in turn, and report process CPU seconds on one thread. Differences of the work:

* GPyTorch in batch mode, its caches filled, without and with ``fast_pred_var``, in float32. Ours, factors at hand, in
  float64: of the posterior alone, and of ``GaussianProcess.posterior`` with checks, inputs and scales.
* ``off`` is the largest difference of mean and variance to dense algebra in float64, in units of the prior's variance.
"""

import argparse

import torch
from gp_fit import OUTPUTS, SCHEMA, data
from peers import own_lines, peer_lines
from timing import comparison, cpu_median, emit, machine, median_of, set_up

import bayeswm as bwm
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.inference import ExactPosterior

POINTS, ROWS = 1000, 500


def fitted(n: int) -> bwm.GaussianProcess:
    """A process on the peers' problem."""
    x, y = data(n)
    state = x[:, :OUTPUTS]
    train = bwm.Trajectories(SCHEMA, state=torch.stack((state, state + y), 1), action=x[:, None, OUTPUTS:])
    return bwm.GaussianProcess(restarts=1).fit(train, progress=False)


def off(posterior: ExactPosterior, points: torch.Tensor) -> float:
    """Largest difference to dense algebra."""
    mean, variance = posterior.function(points)
    found = []
    for s, (values, noise) in enumerate(zip(*posterior.hyper, strict=True)):
        kernel, x = posterior.kernel, posterior.x
        full = kernel.covariance(x, x, values) + noise.square() * torch.eye(len(x), dtype=torch.float64)
        cross = kernel.covariance(points, x, values)
        solved = torch.linalg.solve(full, cross.mT)
        prior = kernel.variance(values, x.shape[1])
        found.append((mean[s] - solved.mT @ posterior.y[s]).abs().max() / prior.sqrt())
        found.append((variance[s] - prior + (cross * solved.mT).sum(-1)).abs().max() / prior)
    return float(max(found))


def own() -> None:
    model = fitted(ROWS)
    x = standard_normal((POINTS, OUTPUTS + 1), make_generator(1), dtype=torch.float64)
    residual = model._fitted
    points = residual.inputs(x[:, :OUTPUTS], x[:, OUTPUTS:], x[:, :0])
    with torch.no_grad():
        alone = cpu_median(lambda: residual.posterior.function(points), repeats=15)
        emit("posterior", alone, off=off(residual.posterior, points))
        emit("model", cpu_median(lambda: model.posterior(x[:, :OUTPUTS], x[:, OUTPUTS:]), repeats=15))


def compare(rounds: int) -> None:
    print(f"GP mean and variance at {POINTS} points, N={ROWS}, 4 outputs, 5 inputs; {machine()}")
    start = f"batch-mode MVN E=4 N={ROWS} test={POINTS} fast_pred_var="
    peer, ours = [], []
    for _ in range(rounds):
        peer += peer_lines(
            "bench_gpytorch.py", "predictbatch", until=lambda line: str(line["config"]).startswith(f"{start}True")
        )
        ours += own_lines(__file__)
    for name in ("posterior", "model"):
        for fast in ("False", "True"):
            text = comparison(median_of(peer, start + fast), median_of(ours, name), name="GPyTorch")
            print(f"  {name:9s} fast_pred_var={fast:5s}  {text}")
    print(f"  off by {median_of(ours, 'posterior', 'off'):.1e}")
    if not peer:
        print("  ../shared/peers is not beside the checkout: ours alone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--own", action="store_true", help="run our side only and print JSON lines")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    set_up()
    own() if arguments.own else compare(arguments.rounds)
