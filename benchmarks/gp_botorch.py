"""Fit of an exact Gaussian process with BoTorch's own kernel and priors, beside ``SingleTaskGP`` and its fit.

4 outputs, 5 inputs, RBF with a length scale for each and no output scale, a constant mean, log-normal priors, float64;
both in one process of the peers' environment, in CPU seconds on one thread, imports and first calls not counted.

* Ours starts three times and keeps the best; BoTorch's starts once.
* ``gap`` is the smallest difference of an output's objective, both computed by BoTorch: above 0 is better.
"""

import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from peers import CLONE, interpreter
from timing import machine, set_up

OUTPUTS, INPUTS = 4, 5


def data(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The peers' problem: sines of random projections, and noise."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, INPUTS, generator=g, dtype=torch.float64)
    w = torch.randn(INPUTS, OUTPUTS, generator=g, dtype=torch.float64)
    return x, 0.5 * torch.sin(x @ w) + 0.05 * torch.randn(n, OUTPUTS, generator=g, dtype=torch.float64)


def compare(n: int) -> None:
    import gpytorch
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP

    from bayeswm.inference import RBF, HyperPriors, Scaled, fit_hyper

    x, y = data(n)
    standardised = ((y - y.mean(0)) / y.std(0)).mT.contiguous()
    kernel, settings = Scaled(RBF(), signal=1.0), {"priors": HyperPriors.botorch(), "noise_floor": 0.01, "seed": 0}
    fit_hyper(kernel, x[:50], standardised[:, :50], restarts=1, constant=True, **settings)
    began = time.process_time()
    hyper, fits = fit_hyper(kernel, x, standardised, restarts=3, constant=True, **settings)
    ours = time.process_time() - began

    model = SingleTaskGP(x, y)
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)

    def objective() -> torch.Tensor:
        model.train()
        with torch.no_grad():
            return n * mll(model(*model.train_inputs), model.train_targets)

    objective()
    began = time.process_time()
    fit_gpytorch_mll(mll)
    theirs = time.process_time() - began
    best = objective()
    with torch.no_grad():
        model.covar_module.raw_lengthscale.copy_(hyper.values[:, None])
        model.likelihood.noise_covar.raw_noise.copy_(hyper.noise.square()[:, None])
        model.mean_module.raw_constant.copy_(torch.tensor([f.constant for f in fits]))
    gap = float((objective() - best).min())
    print(
        f"  N = {n}: BoTorch {theirs:.2f} s, bayeswm {ours:.2f} s   ratio {theirs / ours:.2f}   gap {gap:+.4f}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--both", action="store_true", help="measure in this environment")
    if parser.parse_args().both:
        sys.path.insert(0, str(CLONE))
        set_up()
        warnings.simplefilter("ignore")
        print(f"exact GP fit with BoTorch's kernel and priors, 4 outputs, 5 inputs, float64; {machine()}", flush=True)
        for rows in (200, 500, 1000):
            compare(rows)
    elif (python := interpreter()) is not None:
        sys.exit(subprocess.run([str(python), "-W", "ignore", str(Path(__file__)), "--both"], check=False).returncode)
