"""Laplace's approximation: a Gaussian around the highest point of the posterior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, override

import torch

from bayeswm.base.errors import FitError, SpecError
from bayeswm.base.random import standard_normal
from bayeswm.inference.curvature import Curvature, FullHessian, fixed_log_prior
from bayeswm.inference.evidence import choose_scales
from bayeswm.inference.joint import Inference, Inferred, Joint
from bayeswm.inference.maximum import maximise

# draws of the prior that the rough size of each coordinate is taken from
_SIZING = 256
# draws whose log density is found together
_TOGETHER = 64


@dataclass(frozen=True)
class Laplace(Inference):
    """A Gaussian at the maximum of the posterior, with the curvature there as its precision.

    Maximum and Gaussian are those of the density in unconstrained coordinates, with the volume change of the map to
    them: a positive parameter is approximated by a law of its logarithm, and the maximum is not that of the density in
    the parameter's own units. Exact where the posterior is Gaussian there; elsewhere it knows one mode only.

    Draws of all weights of a network go through the network itself, not through its linearisation, and where data leave
    weights undetermined these draws predict worse than they should (Immer, Korzepa & Bauer 2021). With
    :class:`LastLayer` the network is linear in what varies.

    Parameters
    ----------
    curvature : Curvature
        :class:`FullHessian` (the default), :class:`GaussNewton`, :class:`Kronecker`,
        :class:`Diagonal` or :class:`LastLayer`.
    empirical_bayes : bool
        Choose the scale of networks' priors (a factor on the scale of their law) and the noise of each column such that
        the evidence is highest, before the Gaussian is made (MacKay 1992). It needs a Gaussian likelihood.
    starts : int
        Draws of the prior from which the maximum is sought; the best end is kept.
    draws : int
        Draws of the posterior.

    Raises
    ------
    SpecError
        If a setting makes no sense.

    Examples
    --------
    >>> from torch.distributions import Gamma, Poisson
    >>> counts = torch.tensor([9.0, 12.0, 11.0, 8.0], dtype=torch.float64)
    >>> def log_likelihood(values, rows):
    ...     return Poisson(values["rate"][:, None]).log_prob(counts if rows is None else counts[rows])
    >>> joint = Joint({"rate": Gamma(1.0, 0.1)}, log_likelihood, terms=4)
    >>> found = Laplace().infer(joint, generator=torch.Generator().manual_seed(0))
    >>> found.values["rate"].shape, round(found.statistics["log_evidence"], 1)  # exactly -10.72
    (torch.Size([1, 1000]), -10.7)
    """

    curvature: Curvature = field(default_factory=FullHessian)
    empirical_bayes: bool = False
    starts: int = 8
    draws: int = 1000

    def __post_init__(self) -> None:
        if not isinstance(self.curvature, Curvature):
            raise SpecError(f"expected a Curvature such as FullHessian(), got {self.curvature!r}")
        for name, least in {"starts": 1, "draws": 4}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SpecError(f"expected {name} to be an integer >= {least}, got {value!r}")

    @override
    def infer(self, joint: Joint, *, generator: torch.Generator, progress: bool = False) -> Inferred:
        with torch.no_grad():
            index = self.curvature.uncertain(joint)
            drawn = joint.flat.sample(_SIZING + self.starts, generator)
            scale = drawn.std(0).clamp(1e-12, 1e12)
            found = maximise(joint.log_density, drawn[: self.starts], scale=scale, progress=progress)
            found.warn()
            x, figures = found.x, {"evaluations": float(found.evaluations)}
            chosen = choose_scales(joint, x, self.curvature, scale=scale) if self.empirical_bayes else None
            if chosen is not None:
                joint, x = chosen.joint, chosen.x
                figures["evaluations"] += chosen.evaluations
                figures |= {f"prior_scale.{k}": v for k, v in chosen.prior_scale.items()}
            precision = self.curvature.precision(joint, x)
            height = joint.log_density(x[None])[0]
            integral = 0.5 * (len(index) * math.log(2 * math.pi) - precision.log_det)
            evidence = float(height - fixed_log_prior(joint, x, index) + integral)
            figures |= {
                "log_density": float(height),
                "log_evidence": evidence if chosen is None else chosen.log_evidence,
            }
            noise = standard_normal((self.draws, len(index)), generator, dtype=torch.float64, device="cpu")
            points = x.repeat(self.draws, 1)
            points[:, index] += precision.spread(noise)
            values = {k: v[None] for k, v in joint.values(points).items()}
            if not all(bool(v.isfinite().all()) for v in values.values()):
                raise FitError("expected finite draws, got NaN or infinity: the curvature is too weak; use HMC")
            lp = torch.cat([joint.log_density(part) for part in points.split(_TOGETHER)])
            return Inferred(values, {"lp": lp[None]}, figures)

    @override
    def config(self) -> dict[str, Any]:
        name = type(self.curvature).__name__
        if Curvature.registry.get(name) is not type(self.curvature):
            raise SpecError(f"cannot save a curvature of class {name}; use one of {', '.join(Curvature.registry)}")
        return {**asdict(self), "curvature": name}

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Laplace:
        name = config["curvature"]
        if name not in Curvature.registry:
            raise SpecError(f"expected a curvature among {', '.join(Curvature.registry)}, got {name!r}")
        return cls(**{**config, "curvature": Curvature.registry[name]()})
