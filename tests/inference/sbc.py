"""Simulation-based calibration: is the truth of simulated data a typical draw of the posterior given these data?"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tests.statistical.checks import chi_square_p

Values = Mapping[str, Tensor]


def ranks(
    prior: Callable[[torch.Generator], Values],
    simulate: Callable[[Values, torch.Generator], object],
    infer: Callable[[object, torch.Generator], Values],
    *,
    replications: int,
    draws: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Ranks (replications, ...) of each true parameter among `draws` draws of its posterior, in 0 .. draws.

    `prior` draws one set of parameters; `infer` returns draws (n, ...) of some or all of them, n >= `draws`, in order
    and chain by chain: those kept are evenly spaced over all, so that they are nearly independent. Equal numbers are
    put in a random order. Talts et al. (2018), Validating Bayesian inference algorithms with simulation-based
    calibration.
    """
    found: dict[str, list[Tensor]] = {}
    for _ in range(replications):
        truth = prior(generator)
        posterior = infer(simulate(truth, generator), generator)
        for name, values in posterior.items():
            if len(values) < draws:
                raise ValueError(f"{name}: {len(values)} draws, {draws} wanted")
            kept = values[(torch.arange(draws) * len(values)) // draws].double()
            true = torch.as_tensor(truth[name]).double()
            equal = (kept == true).sum(0)
            tie = (torch.rand(equal.shape, generator=generator, dtype=torch.float64) * (equal + 1)).floor()
            found.setdefault(name, []).append((kept < true).sum(0) + tie.long())
    return {name: torch.stack(each) for name, each in found.items()}


def uniform_p(found: Values, *, draws: int) -> dict[str, float]:
    """P-value of each parameter's entry: chi-square over bins, and a z-test of the mean and spread of its ranks.

    The chi-square sees any shape, the others the usual faults, a shift and a posterior too wide or narrow, with more
    power. The smallest of the three counts, times 3. Bins hold at least 5 expected ranks each.
    """
    p: dict[str, float] = {}
    for name, rank in found.items():
        flat = rank.reshape(len(rank), -1)
        for i, column in enumerate(flat.unbind(1)):
            n = len(column)
            bins = max(min(n // 5, draws + 1, 20), 2)
            where = column * bins // (draws + 1)
            # bins of unequal numbers of ranks: each expects its share
            share = torch.bincount(torch.arange(draws + 1) * bins // (draws + 1), minlength=bins) / (draws + 1)
            seen = torch.bincount(where, minlength=bins)
            chi_square = float(((seen - n * share).square() / (n * share)).sum())
            u = (column.double() + 0.5) / (draws + 1) - 0.5
            # moments of the uniform law on (k + 1/2) / (L + 1) - 1/2, k = 0 .. L
            grid = (torch.arange(draws + 1).double() + 0.5) / (draws + 1) - 0.5
            second, fourth = float(grid.square().mean()), float(grid.pow(4).mean())
            shift = float(u.mean()) / math.sqrt(second / n)
            spread = (float(u.square().mean()) - second) / math.sqrt((fourth - second**2) / n)
            each = [chi_square_p(chi_square, bins - 1), *(math.erfc(abs(z) / math.sqrt(2)) for z in (shift, spread))]
            p[name if flat.shape[1] == 1 else f"{name}[{i}]"] = min(1.0, 3 * min(each))
    return p


def combined_p(p: Mapping[str, float]) -> float:
    """Smallest p-value, corrected for their number (Bonferroni): valid however the parameters depend on each other."""
    return min(1.0, len(p) * min(p.values()))
