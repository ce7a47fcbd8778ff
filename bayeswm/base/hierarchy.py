"""Parameters that differ between episodes: a population, and one value of it in each episode."""

from __future__ import annotations

from typing import Any, ClassVar, override

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from bayeswm.base.errors import SpecError

Level = float | Tensor | Distribution


class Hierarchical(Distribution):
    """The law of a parameter that is drawn anew for each episode from a population that itself is uncertain.

    A payload, a wind, the state of the bearings of the day. In an episode the parameter is ``location + scale * z``
    with z a standard normal number of that episode, or ``location * exp(scale * z)``, if ``relative``: then a positive
    location is the population's median and the scale the standard deviation of the logarithm.

    Parameters
    ----------
    location : float or Distribution
        Of the population, in the parameter's unit, known or with a law.
    scale : float or Distribution
        How far episodes spread, > 0; in the parameter's unit, or, if ``relative``, a share of it. A law that keeps away
        from 0, such as LogNormal, is easier to sample than one that reaches it: near 0 all episodes move as one.
    relative : bool
        Whether the spread multiplies.

    Raises
    ------
    SpecError
        If location or scale is no single number or law of one, a known scale is not above 0, or a relative one has a
        location that may be 0 or below.

    Examples
    --------
    >>> from torch.distributions import LogNormal
    >>> payload = Hierarchical(LogNormal(0.0, 0.5), LogNormal(-2.0, 0.5), relative=True)
    >>> payload.support, payload.sample((3,)).shape
    (GreaterThan(lower_bound=0.0), torch.Size([3]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore[reportIncompatibleMethodOverride] (torch's way)
    has_rsample = False

    def __init__(self, location: Level, scale: Level, *, relative: bool = False) -> None:
        self.location, self.scale, self.relative = location, scale, relative
        for name, value in {"location": location, "scale": scale}.items():
            shape = (
                value.batch_shape + value.event_shape
                if isinstance(value, Distribution)
                else torch.as_tensor(value).shape
            )
            if len(shape):
                raise SpecError(f"expected {name} to be one number or a law of one, got shape {tuple(shape)}")
        if not isinstance(scale, Distribution) and not float(scale) > 0:
            raise SpecError(f"expected scale > 0, got {scale}; use a number or a law without episodes for none")
        if relative and not isinstance(location, Distribution) and not float(location) > 0:
            raise SpecError(f"expected location > 0 of a relative spread, got {location}")
        super().__init__(torch.Size(), validate_args=False)

    @property
    def support(self) -> Any:
        """Positive numbers if the spread is relative, else all."""
        return constraints.positive if self.relative else constraints.real

    def value(self, location: Tensor, scale: Tensor, z: Tensor) -> Tensor:
        """Return the parameter in episodes, from the population's location and scale and the episodes' z."""
        return location * (scale * z).exp() if self.relative else location + scale * z

    @override
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw parameters of new episodes, each from a population of its own."""
        shape = torch.Size(sample_shape)

        def level(value: Level) -> Tensor:
            return value.sample(shape) if isinstance(value, Distribution) else torch.as_tensor(value).expand(shape)

        location, scale = level(self.location), level(self.scale)
        return self.value(location, scale, torch.randn(shape, dtype=torch.promote_types(location.dtype, scale.dtype)))

    @property
    def mean(self) -> Tensor:
        """The population's location, or the mean of its law."""
        return self.location.mean if isinstance(self.location, Distribution) else torch.as_tensor(self.location)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Refuse: the density over populations has no closed form, and inference does not need it."""
        raise NotImplementedError("a hierarchical law has no closed density; its levels have laws of their own")

    @override
    def expand(self, batch_shape: Any, _instance: Any = None) -> Hierarchical:
        """Refuse: the parameter is one number in each episode."""
        raise SpecError(f"expected one number in each episode, got a parameter of shape {tuple(batch_shape)}")

    def __repr__(self) -> str:
        return f"Hierarchical(location={self.location!r}, scale={self.scale!r}, relative={self.relative})"
