"""Joint densities built by hand: regressions of several columns on features."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayeswm.base.random import make_generator
from bayeswm.inference import Joint
from bayeswm.structures.networks import evaluate

F64 = torch.float64
Values = Mapping[str, Tensor]


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=make_generator(seed), dtype=F64)


def gaussian_joint(mean, y: Tensor, *, laws: Mapping[str, Distribution], noise: Mapping[str, float], **more) -> Joint:
    """Return the density of y (n, S) around ``mean(values)`` (W, n, S).

    Noise is a number for each column, or the name of a parameter with what is added to it.
    """

    def predict(values: Values, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        found = mean(values)
        columns = [
            values[k] + v if k in laws else found.new_full((len(found),), v, dtype=F64) for k, v in noise.items()
        ]
        sd = torch.stack(columns, -1)[:, None].expand(found.shape)
        return (found, sd) if rows is None else (found[:, rows], sd[:, rows])

    def log_likelihood(values: Values, rows: Tensor | None) -> Tensor:
        return Normal(*predict(values, rows), validate_args=False).log_prob(y if rows is None else y[rows]).sum(-1)

    sites = {k: (i, v) for i, (k, v) in enumerate(noise.items())}
    return Joint(laws, log_likelihood, terms=len(y), predict=predict, target=y, noise=sites, **more)


def by_column(phi: Tensor, *, name: str = "w"):
    """Return the mean in which each column has coefficients of its own, w (W, S, D)."""
    return lambda values: torch.einsum("nd,wsd->wns", phi, values[name])


X = torch.cat((torch.linspace(-2, -1, 12), torch.linspace(0.5, 1.5, 12)))[:, None].double()
WAVE = torch.sin(3 * X) + 0.1 * randn(24, 1, seed=3)


def network_joint(
    sizes: tuple[int, ...], x: Tensor, y: Tensor, *, laws: Mapping[str, Distribution], noise: Mapping[str, float]
) -> Joint:
    """Return the density of y (n, S) around a network of x (n, D), whose weights ``net`` have a law."""

    def mean(values: Values) -> Tensor:
        return evaluate(values["net"], x.expand(len(values["net"]), -1, -1), sizes)

    return gaussian_joint(mean, y, laws=laws, noise=noise, layers={"net": tuple(itertools.pairwise(sizes))})
