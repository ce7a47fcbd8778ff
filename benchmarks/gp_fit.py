"""Fit of an exact Gaussian process, 4 outputs, 5 inputs, RBF with a length scale for each, beside scikit-learn.

Both maximise the marginal likelihood of each output by L-BFGS-B in float64 and run in turn in one process, in CPU
seconds on one thread. Differences of the work:

* scikit-learn starts once. Ours is shown with one start and with its default of three, of which the best is kept.
* scikit-learn's noise has a lower limit of 0.003, ours of 0.003 times the outputs' root mean square.
* Ours is the whole ``GaussianProcess.fit``: transitions, standardising, and the factors kept for predictions.
* ``gap`` is the smallest difference of an output's log marginal likelihood to scikit-learn's: above 0 is better.
"""

import argparse
import statistics
import time
import warnings

import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from timing import machine, set_up

import bayeswm as bwm
from bayeswm.base.random import make_generator, standard_normal

OUTPUTS = 4
SCHEMA = bwm.Schema(state=[bwm.Variable(f"x{i}") for i in range(OUTPUTS)], action=[bwm.Variable("u")], time_step=0.05)


def data(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The peers' problem: sines of random projections, and noise."""
    g = make_generator(0)
    x = standard_normal((n, OUTPUTS + 1), g, dtype=torch.float64)
    w = standard_normal((OUTPUTS + 1, OUTPUTS), g, dtype=torch.float64)
    return x, 0.5 * torch.sin(x @ w) + 0.05 * standard_normal((n, OUTPUTS), g, dtype=torch.float64)


def own(x: torch.Tensor, y: torch.Tensor, restarts: int) -> tuple[float, list[float]]:
    state = x[:, :OUTPUTS]
    train = bwm.Trajectories(SCHEMA, state=torch.stack((state, state + y), 1), action=x[:, None, OUTPUTS:])
    began = time.process_time()
    model = bwm.GaussianProcess(priors=None, restarts=restarts).fit(train, progress=False)
    seconds = time.process_time() - began
    shift = len(x) * y.square().mean(0).sqrt().log()
    return seconds, [f.log_likelihood - float(s) for f, s in zip(model.fits, shift, strict=True)]


def sklearn(x: torch.Tensor, y: torch.Tensor) -> tuple[float, list[float]]:
    inputs, values = x.numpy(), y.numpy()
    began = time.process_time()
    found = []
    for s in range(OUTPUTS):
        kernel = ConstantKernel(1.0) * RBF([1.0] * inputs.shape[1]) + WhiteKernel(0.1)
        found.append(float(GaussianProcessRegressor(kernel).fit(inputs, values[:, s]).log_marginal_likelihood_value_))
    return time.process_time() - began, found


def compare(rounds: int) -> None:
    print(f"exact GP fit, 4 outputs, 5 inputs, RBF-ARD, float64; {machine()}")
    for n in (500, 1000):
        x, y = data(n)
        own(x, y, 1)  # imports and first calls do not count
        times: dict[str, list[float]] = {"scikit-learn": [], "1 start": [], "3 starts": []}
        likelihoods: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, restarts in (("scikit-learn", 0), ("1 start", 1), ("3 starts", 3)):
                seconds, found = own(x, y, restarts) if restarts else sklearn(x, y)
                times[name].append(seconds)
                likelihoods[name] = found
        reference = statistics.median(times["scikit-learn"])
        print(f"  N = {n}: scikit-learn {reference:.2f} s")
        for name in ("1 start", "3 starts"):
            seconds = statistics.median(times[name])
            gap = min(a - b for a, b in zip(likelihoods[name], likelihoods["scikit-learn"], strict=True))
            print(f"    bayeswm, {name:9s} {seconds:6.2f} s   ratio {reference / seconds:5.2f}   gap {gap:+.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    set_up()
    warnings.simplefilter("ignore", FutureWarning)
    compare(arguments.rounds)
