"""Bayesian linear regression as a way of inference: the posterior in closed form, drawn exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import override

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError
from bayeswm.base.gauss_hermite import hermite_grid
from bayeswm.base.random import make_generator
from bayeswm.inference.affine import AffineMean, Rows
from bayeswm.inference.joint import Inference, Inferred, Joint
from bayeswm.inference.normal_inverse_gamma import NormalInverseGamma, NormalRegression

# of the noise's floor, what is left to a standard deviation that was drawn below it
_LEAST = 1e-3
# weighted points at most that a posterior is turned into
_NODES = 10_000


@dataclass(frozen=True)
class Conjugate(Inference):
    """Closed form where the mean is affine in parameters with normal laws, whatever the features of the inputs.

    Known noise: the laws of the parameters are taken as they are, and the posterior is normal.

    Unknown noise of a column: its law is replaced by a conjugate one. The variance v has the law
    InverseGamma(shape, scale u^2), where u is the root mean square of the standard deviation under its own law
    (s for HalfNormal(s)); the coefficients of that column have their own mean and the covariance C v / v0, where C is
    that of their own law and v0 = scale u^2 / shape. By themselves they are thus Student-t with 2 shape degrees of
    freedom, with the mean and scale of their own law. Where the noise turns out k times the typical one, v0^(1/2), they
    are held k times more loosely; noise far below it is overestimated until the rows outweigh two rows of that size.
    Columns that share a coefficient cannot have unknown noise: the
    posterior would not be in closed form.

    Draws are independent, and :meth:`update` is exact: the posterior given all rows is the same, in parts or at once.

    Parameters
    ----------
    shape, scale : float
        Of the law of noise variances, the scale in units of u^2; by default half of the law lies between 0.085 and
        0.186 u, and its tail of large values is heavy.
    draws : int
        Draws of the posterior.

    Raises
    ------
    SpecError
        If a number makes no sense. :meth:`infer` raises it for a density that is not such a regression, with the name
        of the parameter.

    Examples
    --------
    >>> from torch.distributions import HalfNormal, Normal
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
    >>> y = (0.5 + 2.0 * x.square() + 0.1 * torch.sin(40 * x))[:, None]
    >>> def predict(values, rows):
    ...     phi = torch.stack((torch.ones(50), x.square()), -1).double()
    ...     phi = phi if rows is None else phi[rows]
    ...     mean = torch.einsum("nd,wd->wn", phi, values["w"])[..., None]
    ...     return mean, values["sigma"][:, None, None].expand(mean.shape)
    >>> def log_likelihood(values, rows):
    ...     return Normal(*predict(values, rows)).log_prob(y if rows is None else y[rows]).sum(-1)
    >>> laws = {"w": Normal(torch.zeros(2), 10.0), "sigma": HalfNormal(1.0)}
    >>> joint = Joint(laws, log_likelihood, terms=50, predict=predict, target=y, noise={"sigma": (0, 0.0)})
    >>> found = Conjugate().infer(joint, generator=torch.Generator().manual_seed(0))
    >>> found.values["w"].mean((0, 1)).numpy().round(1).tolist(), round(float(found.values["sigma"].mean()), 1)
    ([0.5, 2.0], 0.1)
    """

    shape: float = 1.0
    scale: float = 0.01
    draws: int = 1000

    def __post_init__(self) -> None:
        for name in ("shape", "scale"):
            value = getattr(self, name)
            if isinstance(value, bool) or not 0 < value < math.inf:
                raise SpecError(f"expected {name} > 0 and finite, got {value!r}")
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 4:
            raise SpecError(f"expected draws to be an integer >= 4, got {self.draws!r}")

    @override
    def infer(self, joint: Joint, *, generator: torch.Generator, progress: bool = False) -> Inferred:
        with torch.no_grad():
            mean = AffineMean(joint)
            mean.check(generator)
            flat = mean.coefficients.mean.repeat(self.draws, 1)
            sites: dict[str, Tensor] = {}
            evidence = 0.0
            for part in self._parts(joint, mean):
                evidence += part.log_evidence
                if isinstance(part.law, NormalRegression):
                    flat[:, part.index] += part.law.draw(self.draws, generator)
                    continue
                drawn, variance = part.law.draw(self.draws, generator)
                flat[:, part.index] += drawn
                floor = joint.noise[part.site][1]
                sites[part.site] = (variance.sqrt() - floor).clamp(min=_LEAST * floor)
            values = mean.coefficients.values(flat) | sites
            return Inferred({k: values[k][None] for k in joint.laws}, {}, {"log_evidence": evidence})

    def nodes(self, joint: Joint, *, order: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return a normal posterior as weighted points, the nodes of a product of Gauss-Hermite rules.

        Expectations of polynomials of the parameters, of a degree below twice the order in each direction, are exact.

        Parameters
        ----------
        joint : Joint
            With known noise.
        order : int
            Nodes along each direction in which the posterior is uncertain.

        Returns
        -------
        tuple of dict of Tensor, shape (nodes, ...), and Tensor, shape (nodes,)
            Values of each parameter, and log weights.

        Raises
        ------
        SpecError
            For unknown noise, a density that is no such regression, or more than 10,000 nodes.
        """
        mean = AffineMean(joint)
        mean.check(make_generator(0))
        size = len(mean.coefficients.mean)
        centre, covariance = mean.coefficients.mean.clone(), torch.zeros(size, size, dtype=torch.float64)
        for part in self._parts(joint, mean):
            if not isinstance(part.law, NormalRegression):
                raise SpecError("expected known noise for nodes of a normal posterior, got a law: give noise= a number")
            centre[part.index] += part.law.mean
            index = torch.tensor(part.index)
            covariance[index[:, None], index] = part.law.covariance
        variance, directions = torch.linalg.eigh(covariance)
        axes = (directions * variance.clamp(min=0).sqrt())[:, variance > 1e-14 * variance.amax()]
        count = order ** axes.shape[1]
        if not 1 <= count <= _NODES:
            raise SpecError(
                f"expected between 1 and {_NODES} nodes, got order {order} in {axes.shape[1]} directions; fix "
                "parameters that do not matter, or draw instead"
            )
        grid, weight = hermite_grid(axes.shape[1], order)
        return mean.coefficients.values(centre + grid @ axes.mT), torch.log_softmax(weight.log(), 0)

    def _parts(self, joint: Joint, mean: AffineMean) -> list[_Part]:
        """Return the regressions that have nothing in common, each with its posterior."""
        covariance = mean.coefficients.covariance
        reached = torch.zeros(0 if joint.target is None else joint.target.shape[1], len(covariance), dtype=torch.bool)
        for rows in mean:
            reached |= (rows.phi != 0).any(0)
        parts = [
            self._before(joint, mean, columns=columns, index=index)
            for columns, index in _separate(reached, covariance != 0)
        ]
        for rows in mean:
            for part in parts:
                part.learn(rows)
        return parts

    def _before(self, joint: Joint, mean: AffineMean, *, columns: list[int], index: list[int]) -> _Part:
        precision = torch.linalg.inv(mean.coefficients.covariance[index][:, index])
        centred = torch.zeros(len(index), dtype=torch.float64)
        unknown = [c for c in columns if c in mean.noise]
        if not unknown:
            return _Part(columns, index, NormalRegression(centred, precision))
        site = mean.noise[unknown[0]]
        if len(columns) > 1:
            shared = ", ".join(sorted({mean.coefficients.labels[i] for i in index}))
            raise SpecError(
                f"expected columns with unknown noise that share no coefficient, got {len(columns)} that share "
                f"({shared}): give their noise as a number, or use HMC"
            )
        scale = self.scale * _mean_square(site, joint.laws[site])
        shape, scale = torch.tensor([self.shape, scale], dtype=torch.float64)
        law = NormalInverseGamma(centred, precision * scale / shape, shape=shape, scale=scale)
        return _Part(columns, index, law, site=site)


class _Part:
    """Columns and the coefficients that reach them, with the law of these; coefficients count from the prior mean."""

    def __init__(
        self, columns: list[int], index: list[int], law: NormalRegression | NormalInverseGamma, *, site: str = ""
    ) -> None:
        self.columns, self.index, self.law, self.site = columns, index, law, site
        self.log_evidence = 0.0

    def learn(self, rows: Rows) -> None:
        phi, y = rows.phi[:, self.columns][..., self.index], rows.y[:, self.columns]
        if isinstance(self.law, NormalRegression):
            noise = rows.noise[:, self.columns]
            phi, y = phi / noise[..., None], y / noise
            self.log_evidence -= float(noise.log().sum())
        phi, y = phi.flatten(0, 1), y.flatten()
        self.log_evidence += float(self.law.log_evidence(phi, y))
        self.law = self.law.update(phi, y)


def _separate(reached: Tensor, together: Tensor) -> list[tuple[list[int], list[int]]]:
    """Return groups of columns and of coefficients that have nothing to do with each other.

    Parameters
    ----------
    reached : Tensor of bool, shape (S, D)
        Whether a column depends on a coefficient.
    together : Tensor of bool, shape (D, D)
        Whether two coefficients depend on each other before data.
    """
    columns, size = reached.shape
    linked = torch.eye(columns + size, dtype=torch.bool)
    linked[:columns, columns:], linked[columns:, :columns], linked[columns:, columns:] = reached, reached.mT, together
    left = list(range(columns + size))
    groups: list[tuple[list[int], list[int]]] = []
    while left:
        group = torch.zeros(columns + size, dtype=torch.bool)
        grown = torch.zeros_like(group).index_fill(0, torch.tensor(left[0]), True)
        while bool((group != grown).any()):
            group, grown = grown, linked[grown].any(0)
        members = group.nonzero()[:, 0].tolist()
        groups.append(([i for i in members if i < columns], [i - columns for i in members if i >= columns]))
        left = [i for i in left if not group[i]]
    return groups


def _mean_square(name: str, law: Distribution) -> float:
    try:
        square = float(law.variance + law.mean.square())
    except NotImplementedError:
        square = math.nan
    if not 0 < square < math.inf:
        raise SpecError(
            f"{name}: expected a law with a finite mean square, which sets the scale of the noise, got "
            f"{type(law).__name__}; use HalfNormal"
        )
    return square
