"""What every way of inference is given, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError
from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.convergence import ess_bulk, r_hat

Values = Mapping[str, Tensor]


class Joint:
    """The joint density of named parameters and data.

    Parameters
    ----------
    laws : mapping of str to Distribution
        The law of each parameter before data.
    log_likelihood : callable
        Takes parameters (W, ...) by name and row numbers (n,), or None for all; returns the log density of these rows
        of the data given the parameters, shape (W, n). Differentiable by autograd.
    terms : int
        Rows: parts of the data that are independent given the parameters.
    predict : callable, optional
        Takes the same and returns what the likelihood compares with the data where that is Gaussian: the mean and its
        standard deviation, both of shape (W, n, S). Linear algebra that uses it is exact where the mean is linear.
    target : Tensor, shape (terms, S), optional
        What ``predict`` is compared with.
    noise : mapping of str to tuple of (int, float), optional
        For parameters that are the standard deviation of one column of ``target``: that column, and what is added to
        the parameter there.
    layers : mapping of str to tuple of (int, int), optional
        For parameters that are the flat weights of a network: inputs and outputs of each of its layers.
    scaled_by : mapping of str to str, optional
        Coordinates of ``flat`` in units of other parameters; see :class:`Unconstrained`.

    Attributes
    ----------
    flat : Unconstrained
        The parameters as vectors of D real numbers.

    Examples
    --------
    Three measurements of one number:

    >>> from torch.distributions import Normal
    >>> seen = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    >>> def log_likelihood(values, rows):
    ...     return Normal(values["level"][:, None], 1.0).log_prob(seen if rows is None else seen[rows])
    >>> joint = Joint({"level": Normal(0.0, 10.0)}, log_likelihood, terms=3)
    >>> joint.log_density(torch.tensor([[2.0], [9.0]], dtype=torch.float64)).numpy().round(1).tolist()
    [-7.0, -80.9]
    """

    def __init__(
        self,
        laws: Mapping[str, Distribution],
        log_likelihood: Callable[[Values, Tensor | None], Tensor],
        *,
        terms: int,
        predict: Callable[[Values, Tensor | None], tuple[Tensor, Tensor]] | None = None,
        target: Tensor | None = None,
        noise: Mapping[str, tuple[int, float]] | None = None,
        layers: Mapping[str, tuple[tuple[int, int], ...]] | None = None,
        scaled_by: Mapping[str, str] | None = None,
    ) -> None:
        self.flat = Unconstrained(laws, scaled_by=scaled_by)
        self.log_likelihood, self.terms = log_likelihood, terms
        self.predict, self.target = predict, target
        self.noise, self.layers = dict(noise or {}), dict(layers or {})

    @property
    def laws(self) -> dict[str, Distribution]:
        """The law of each parameter before data, in float64."""
        return self.flat.laws

    def log_density(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the log density at unconstrained vectors (W, D), shape (W,).

        With rows, the likelihood of these stands for all: it is scaled by terms / n.
        """
        values, log_det = self.flat.constrain(x)
        each = self.log_likelihood(values, rows)
        likelihood = each.sum(-1) if rows is None else self.terms / len(rows) * each.sum(-1)
        return self.flat.log_prior(values) + log_det + likelihood

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Return named parameters (*batch, ...) at unconstrained vectors (*batch, D)."""
        return self.flat.constrain(x)[0]


@dataclass(frozen=True)
class Inferred:
    """A posterior as draws.

    Attributes
    ----------
    values : mapping of str to Tensor, shape (chains, draws, ...)
        Draws of each parameter; one chain where draws are independent.
    sample_stats : mapping of str to Tensor, shape (chains, draws)
        What is known of each draw, under ArviZ's names: ``lp``, ``acceptance_rate``, ``diverging``, ...
    statistics : mapping of str to float
        Figures of the whole run, such as ``step_size`` or ``log_evidence``.

    Examples
    --------
    >>> drawn = torch.randn(4, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> inferred = Inferred({"mass": drawn})
    >>> bool(inferred.r_hat["mass"] < 1.01), inferred.draws
    (True, 1200)
    """

    values: Mapping[str, Tensor]
    sample_stats: Mapping[str, Tensor] = field(default_factory=dict)
    statistics: Mapping[str, float] = field(default_factory=dict)

    @property
    def draws(self) -> int:
        """Number of draws of all chains."""
        first = next(iter(self.values.values()))
        return first.shape[0] * first.shape[1]

    @property
    def r_hat(self) -> dict[str, Tensor]:
        """Split rank-normalised R-hat of each parameter, in the parameter's shape."""
        return {k: r_hat(_flat(v)).view(v.shape[2:]) for k, v in self.values.items()}

    @property
    def ess_bulk(self) -> dict[str, Tensor]:
        """How many independent draws the bulk of each parameter is worth, in the parameter's shape."""
        return {k: ess_bulk(_flat(v)).view(v.shape[2:]) for k, v in self.values.items()}


class Inference(ABC):
    """A way from a joint density to a posterior; its settings are the fields of a frozen dataclass."""

    registry: ClassVar[dict[str, type[Inference]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("bayeswm."):
            Inference.registry[cls.__name__] = cls

    @abstractmethod
    def infer(self, joint: Joint, *, generator: torch.Generator, progress: bool = False) -> Inferred:
        """Return the posterior of the joint density.

        Raises
        ------
        SpecError
            If this way of inference cannot serve this density.
        FitError
            If no posterior can be found.
        """

    def update(self, joint: Joint, since: int, inferred: Inferred, *, generator: torch.Generator) -> Inferred:  # noqa: ARG002
        """Return the posterior given all rows, from that given the rows before ``since``; by default afresh."""
        return self.infer(joint, generator=generator)

    def config(self) -> dict[str, Any]:
        """Return the settings as plain values for JSON.

        Raises
        ------
        SpecError
            If they are not plain.
        """
        if not is_dataclass(self):
            raise SpecError(f"{type(self).__name__} cannot be saved: give it config() and from_config()")
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Inference:
        """Rebuild the way of inference from :meth:`config`."""
        return cls(**config)


def _flat(values: Tensor) -> Tensor:
    return values.flatten(2) if values.ndim > 2 else values[..., None]
