"""Priors on the hyper-parameters of Gaussian processes, and where a fit starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError
from bayeswm.base.priors import decode, encode
from bayeswm.base.random import standard_normal
from bayeswm.inference.gp_algebra import Parameter

type Prior = tuple[float, float] | Distribution

# limits of length scales and of the standard deviations of signal and noise, in standardised units. A drawn function
# is a sum with rounding errors near 1e-16 signal^2 sqrt(n) / noise: a larger signal on little noise would show them
_LENGTHS, _SIGNALS, _MOST_NOISE = (1e-2, 1e3), (1e-3, 30.0), 10.0
# of a period, in units of the kernel's own
_PERIODS = (0.1, 10.0)
_KINDS = ("length", "signal", "noise", "period")


@dataclass(frozen=True)
class HyperPriors:
    r"""Priors of hyper-parameters in standardised units: weak log-normal ones by default.

    Each is a pair, the median and the standard deviation of the logarithm, whose density is that of the *logarithm*
    (its mode is the median); or a law of ``torch.distributions``, whose density is that of the value itself.

    Attributes
    ----------
    length : tuple of float or Distribution
        Of every length scale; a pair's median is in units of the root of the number of inputs that the kernel looks
        at, since distances grow that way (in standard deviations of the inputs; without a unit for periodic kernels).
    signal : tuple of float or Distribution
        Of the standard deviation of every learned signal, in units of the outputs' root mean square.
    noise : tuple of float or Distribution
        Of the noise's standard deviation, in the same units.
    period : tuple of float or Distribution
        Of learned periods; a pair's median is in units of the kernel's own period.
    named : mapping of str to tuple of float or Distribution
        Priors of single hyper-parameters by their names, such as ``"RBF.length"``, before those of their kind.

    Raises
    ------
    SpecError
        If a median or a standard deviation is not above 0.

    Examples
    --------
    >>> HyperPriors().noise
    (0.1, 2.0)
    >>> HyperPriors(named={"RBF.length": torch.distributions.Gamma(3.0, 6.0)}).named
    {'RBF.length': Gamma(concentration: 3.0, rate: 6.0)}
    """

    length: Prior = (1.0, 1.5)
    signal: Prior = (1.0, 1.5)
    noise: Prior = (0.1, 2.0)
    period: Prior = (1.0, 0.3)
    named: Mapping[str, Prior] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, prior in ({k: getattr(self, k) for k in _KINDS} | dict(self.named)).items():
            if isinstance(prior, Distribution):
                continue
            median, spread = prior
            if not (median > 0 and spread > 0):
                raise SpecError(f"expected a median and a spread > 0 in the prior of {name}, got {median}, {spread}")

    @classmethod
    def botorch(cls) -> HyperPriors:
        r"""Return the priors of BoTorch's ``SingleTaskGP`` (Hvarfner et al. 2024), for ``Scaled(RBF(), signal=1.0)``.

        There a length scale is log-normal with location :math:`\sqrt 2 + \log(D) / 2` and scale :math:`\sqrt 3`, and
        the *variance* of the noise log-normal with -4 and 1, each with the density of the value. A log-normal density
        of the value is one of the logarithm with its location moved down by the squared scale, up to a constant.

        Examples
        --------
        >>> HyperPriors.botorch().noise  # exp((-4 - 1) / 2), half the spread of the variance
        (0.0820849986238988, 0.5)
        """
        return cls(length=(math.exp(math.sqrt(2) - 3), math.sqrt(3)), noise=(math.exp(-2.5), 0.5))

    def density(self, parameters: Sequence[Parameter]) -> Density:
        """Return the density of the logarithms of a kernel's hyper-parameters and, last, the noise.

        Raises
        ------
        SpecError
            If ``named`` has a name that the kernel does not.
        """
        every = [*parameters, Parameter("noise", "noise", (), (1.0,))]
        names = [p.name for p in every]
        unknown = [name for name in self.named if name not in names]
        if unknown:
            raise SpecError(f"expected priors named among {', '.join(names)}, got {unknown[0]!r}")
        mean, scale, laws, halved = [], [], [], []
        for p in every:
            prior: Prior = self.named.get(p.name, getattr(self, p.kind))
            here = slice(len(mean), len(mean) + len(p.typical))
            if isinstance(prior, Distribution):
                laws.append((here, prior))
            # a law has no generator of its own to draw starts from
            median, spread = getattr(HyperPriors(), p.kind) if isinstance(prior, Distribution) else prior
            mean += [math.log(median * typical) for typical in p.typical]
            scale += [spread] * len(p.typical)
            halved += [p.kind == "length"] * len(p.typical)
        values = torch.tensor([mean, scale], dtype=torch.float64)
        return Density(values[0], values[1], laws=tuple(laws), halved=torch.tensor(halved))

    def to_dict(self) -> dict[str, Any]:
        """Return the priors as plain values for JSON."""

        def plain(prior: Prior) -> Any:
            return encode(prior) if isinstance(prior, Distribution) else list(prior)

        named = {name: plain(prior) for name, prior in self.named.items()}
        return {**{k: plain(getattr(self, k)) for k in _KINDS}, "named": named}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HyperPriors:
        """Rebuild priors from :meth:`to_dict`."""

        def prior(plain: Any) -> Prior:
            return decode(plain) if isinstance(plain, Mapping) else (float(plain[0]), float(plain[1]))

        named = {name: prior(plain) for name, plain in values["named"].items()}
        return cls(**{k: prior(values[k]) for k in _KINDS}, named=named)


@dataclass(frozen=True, eq=False)
class Density:
    """A density of log hyper-parameters: normal, but for slices that have laws of their own.

    Attributes
    ----------
    mean, scale : Tensor, shape (P + 1,)
        Of the normal density, and of starts.
    laws : tuple of slice and Distribution
        Densities of values.
    halved : Tensor, shape (P + 1,), bool
        Which are length scales.

    Examples
    --------
    >>> density = HyperPriors().density([])
    >>> density(torch.tensor([0.1], dtype=torch.float64).log())[0]
    -0.0
    """

    mean: Tensor
    scale: Tensor
    laws: tuple[tuple[slice, Distribution], ...]
    halved: Tensor

    def __call__(self, at: Tensor) -> tuple[float, Tensor]:
        """Return the logarithm, up to a constant, and its gradient."""
        z = (at - self.mean) / self.scale
        for here, _ in self.laws:
            z[here] = 0.0
        value, gradient = -0.5 * float(z.square().sum()), -z / self.scale
        for here, law in self.laws:
            with torch.enable_grad():
                log_value = at[here].clone().requires_grad_()
                of_law = law.log_prob(log_value.exp()).sum()
                slope = torch.autograd.grad(of_law, log_value)[0]
            value += float(of_law.detach())
            gradient[here] = slope
        return value, gradient

    def starts(self, count: int, generator: torch.Generator) -> Tensor:
        """Return where a fit starts, shape (count, P + 1): the median with half the length scales, then draws."""
        noise = standard_normal((count, len(self.mean)), generator, dtype=torch.float64, device="cpu")
        drawn = self.mean + self.scale * noise
        drawn[0] = self.mean - self.halved * math.log(2)
        return drawn


def limits(parameters: Sequence[Parameter], noise_floor: float) -> Tensor:
    """Return the logarithms of the smallest and largest hyper-parameters, shape (P + 1, 2).

    Examples
    --------
    >>> limits([], 0.01).exp().numpy().round(2).tolist()
    [[0.01, 10.0]]
    """
    pairs = []
    for p in parameters:
        low, high = {"length": _LENGTHS, "signal": _SIGNALS, "period": _PERIODS}[p.kind]
        pairs += [(low * t, high * t) if p.kind == "period" else (low, high) for t in p.typical]
    return torch.tensor([*pairs, (noise_floor, _MOST_NOISE)], dtype=torch.float64).log()
