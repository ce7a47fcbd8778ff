"""A joint density whose mean is affine in parameters of normal laws, as the rows of a linear regression."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from bayeswm.base.errors import FitError, SpecError
from bayeswm.base.random import standard_normal
from bayeswm.inference.joint import Joint, Values

# numbers in one block of the design matrix
_BLOCK = 2**22
# departure from a straight line, as a share of the numbers involved, that rounding explains
_STRAIGHT, _ROUNDING = 1e-8, 1e-14


class Rows(NamedTuple):
    """Some rows of data: inputs (n, S, D), outputs relative to the prior mean's (n, S), noise (n, S)."""

    phi: Tensor
    y: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Coefficients:
    """Parameters with normal laws as one flat vector of D numbers.

    Attributes
    ----------
    shapes : mapping of str to torch.Size
        Of each parameter, in order.
    mean : Tensor, shape (D,)
        Before data.
    covariance : Tensor, shape (D, D)
        Before data.
    """

    shapes: Mapping[str, torch.Size]
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, laws: Mapping[str, Distribution]) -> Self:
        """Collect the laws.

        Raises
        ------
        SpecError
            Naming the parameter whose law is not normal.

        Examples
        --------
        >>> Coefficients.of({"gain": Normal(torch.zeros(2), 3.0), "offset": Normal(1.0, 2.0)}).covariance.diagonal()
        tensor([9., 9., 4.], dtype=torch.float64)
        """
        means: list[Tensor] = []
        blocks: list[Tensor] = []
        for name, law in laws.items():
            base = law.base_dist if isinstance(law, Independent) else law
            if isinstance(base, Normal):
                blocks.append(torch.diag(base.variance.double().flatten()))
            elif isinstance(base, MultivariateNormal):
                size = base.event_shape[0]
                blocks.extend(base.covariance_matrix.double().reshape(-1, size, size))
            else:
                raise SpecError(
                    f"{name}: expected a Normal or MultivariateNormal law, got {type(law).__name__}; "
                    "give it one, fix it, or use HMC"
                )
            means.append(base.mean.double().flatten())
        shapes = {k: law.batch_shape + law.event_shape for k, law in laws.items()}
        none = torch.zeros(0, dtype=torch.float64)
        return cls(shapes, torch.cat([none, *means]), torch.block_diag(*blocks) if blocks else none.new_zeros(0, 0))

    @property
    def labels(self) -> list[str]:
        """The parameter that each of the D numbers belongs to."""
        return [name for name, shape in self.shapes.items() for _ in range(shape.numel())]

    def values(self, flat: Tensor) -> dict[str, Tensor]:
        """Return named parameters (*batch, ...) of flat vectors (*batch, D)."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), flat.split(sizes, -1), strict=True)
        return {name: part.reshape((*flat.shape[:-1], *shape)) for (name, shape), part in parts}


class AffineMean:
    """The mean of a joint density as a linear regression on its coefficients.

    The inputs are the derivative of the mean, which differences give without error where the mean is affine.

    Parameters
    ----------
    joint : Joint
        With ``predict`` and ``target``. Parameters named in its ``noise`` are standard deviations, all others
        coefficients.

    Attributes
    ----------
    coefficients : Coefficients
        Parameters that the mean depends on.
    noise : mapping of int to str
        The parameter that is the noise of a column of the target, where that is not known.

    Raises
    ------
    SpecError
        If the density does not say its mean, or a law is not normal.

    Examples
    --------
    >>> x, y = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[1.5], [3.5]]).double()
    >>> def predict(values, rows):
    ...     mean = values["gain"][:, None, None] * (x if rows is None else x[rows])
    ...     return mean, torch.ones_like(mean)
    >>> joint = Joint({"gain": Normal(1.0, 1.0)}, lambda v, r: None, terms=2, predict=predict, target=y)
    >>> [rows.y[:, 0].tolist() for rows in AffineMean(joint)]
    [[0.5, 1.5]]
    """

    def __init__(self, joint: Joint) -> None:
        if joint.predict is None or joint.target is None:
            raise SpecError("expected a joint density with predict= and target= (a Gaussian likelihood), got none")
        self._predict, self._target, self._terms = joint.predict, joint.target.double(), joint.terms
        self.noise = {column: name for name, (column, _) in joint.noise.items() if name in joint.laws}
        named = set(self.noise.values())
        self.coefficients = Coefficients.of({k: v for k, v in joint.laws.items() if k not in named})
        central = joint.values(torch.zeros(joint.flat.size, dtype=torch.float64))
        self._central = {k: v for k, v in central.items() if k in named}

    def __iter__(self) -> Iterator[Rows]:
        """Yield all rows in blocks."""
        mean, scale = self.coefficients.mean, self.coefficients.covariance.diagonal().sqrt()
        points = torch.cat((mean[None], mean + torch.diag(scale)))
        size = max(_BLOCK // (len(points) * self._target.shape[1]), 1)
        for rows in torch.arange(self._terms).split(size):
            means, noise = self._at(points, rows)
            y = self._target[rows] - means[0]
            change = means[1:] - means[0]
            # a column that a coefficient does not reach shows at most rounding
            change = torch.where(change.abs() <= _ROUNDING * means[0].abs(), 0.0, change)
            phi = (change / scale[:, None, None]).permute(1, 2, 0)
            if not (bool(phi.isfinite().all()) and bool(y.isfinite().all())):
                raise FitError("expected finite means and targets, got NaN or infinity; look at the data and the laws")
            yield Rows(phi, y, noise[0])

    def check(self, generator: torch.Generator) -> None:
        """Refuse a mean that is not affine, at random points of the prior.

        Raises
        ------
        SpecError
            Naming the parameters.
        """
        mean, scale = self.coefficients.mean, self.coefficients.covariance.diagonal().sqrt()
        if not len(mean):
            return
        rows = torch.arange(self._terms)[:: max(self._terms // 64, 1)]
        z = standard_normal((4, len(mean)), generator, dtype=torch.float64, device="cpu") * scale
        means, noise = self._at(torch.cat((mean[None], mean + torch.diag(scale), mean + z)), rows)
        line = means[0] + torch.einsum("wd,dns->wns", z / scale, means[1 : 1 + len(mean)] - means[0])
        found = means[1 + len(mean) :]
        if bool((noise != noise[0]).any()):
            raise SpecError("expected noise that does not depend on the coefficients, got some that does; use HMC")
        if _close(found, line, means):
            return
        bent: list[str] = []
        labels = self.coefficients.labels
        for name in self.coefficients.shapes:
            own = z * torch.tensor([float(label == name) for label in labels], dtype=torch.float64)
            one, two = (self._at(mean + k * own, rows)[0] for k in (1.0, 2.0))
            if not _close(two - one, one - means[0], torch.cat((one, two))):
                bent.append(name)
        which = ", ".join(bent) or f"a product of some of ({', '.join(self.coefficients.shapes)})"
        raise SpecError(f"expected a mean that is affine in all uncertain parameters; it is not in {which}: use HMC")

    def _at(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        count = len(points)
        values: Values = self.coefficients.values(points) | {
            k: v.expand(count, *v.shape) for k, v in self._central.items()
        }
        mean, noise = self._predict(values, rows)
        return mean, noise.expand(mean.shape)


def _close(found: Tensor, wanted: Tensor, size: Tensor) -> bool:
    largest = size.abs().amax((0, 1)).clamp(min=1e-300)
    return bool(((found - wanted).abs() <= _STRAIGHT * largest).all())
