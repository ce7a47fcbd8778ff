"""Linear-Gaussian systems, for which whatever a rollout estimates is known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from bayeswm.base.errors import SpecError
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Parameter
from bayeswm.models.known import KnownDynamics
from bayeswm.structures.from_function import FromFunction


class JointMoments(NamedTuple):
    """Exact moments of a trajectory x[1..H], flattened step by step.

    ``mean`` has shape (H * S,); ``aleatoric`` and ``epistemic``, of shape (H * S, H * S), add up to the covariance.
    """

    mean: Tensor
    aleatoric: Tensor
    epistemic: Tensor

    @property
    def covariance(self) -> Tensor:
        """Covariance over all worlds, shape (H * S, H * S)."""
        return self.aleatoric + self.epistemic


@dataclass(frozen=True, eq=False)
class LinearGaussianSystem:
    """x' = A x + B u + d + e with e ~ N(0, diag(noise^2)) at each step and d ~ N(0, diag(drift^2)) fixed in each world.

    The unknown drift d is the epistemic part; everything stays jointly Gaussian.

    Parameters
    ----------
    A : Tensor, shape (S, S)
        Transition matrix.
    B : Tensor, shape (S, A)
        Input matrix.
    noise : Tensor, shape (S,)
        Standard deviations of the process noise; 0 is no noise.
    drift : Tensor, shape (S,)
        Standard deviations of the unknown drift a step; all 0 is a known system.

    Raises
    ------
    SpecError
        If shapes do not fit, or a standard deviation is below 0, or the drift is known in some variables only.

    Examples
    --------
    A random walk with an unknown drift: after two steps the noise has variance 1 + 1, the drift 2^2.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> walk = LinearGaussianSystem(A=one[:, None], B=one[:, None], noise=one, drift=one)
    >>> exact = walk.joint(torch.zeros(1), torch.zeros(2, 1))
    >>> float(exact.aleatoric[1, 1]), float(exact.epistemic[1, 1])
    (2.0, 4.0)
    """

    A: Tensor
    B: Tensor
    noise: Tensor
    drift: Tensor

    def __post_init__(self) -> None:
        size = self.A.shape[0]
        shapes = {"A": (size, size), "B": (size, self.B.shape[-1]), "noise": (size,), "drift": (size,)}
        for name, shape in shapes.items():
            if tuple(getattr(self, name).shape) != shape:
                raise SpecError(f"expected {name} of shape {shape}, got {tuple(getattr(self, name).shape)}")
        for name in ("noise", "drift"):
            if bool((getattr(self, name) < 0).any()):
                raise SpecError(f"expected standard deviations of the {name} of at least 0, got {getattr(self, name)}")
        if bool((self.drift > 0).any()) and not bool((self.drift > 0).all()):
            raise SpecError(f"expected an unknown drift in all variables or in none, got {self.drift}")

    @property
    def uncertain(self) -> bool:
        """Whether the drift is unknown, so that worlds are drawn."""
        return bool((self.drift > 0).all())

    @property
    def schema(self) -> Schema:
        """States x0, x1, ... and actions u0, u1, ..., one second a step."""
        return Schema(
            state=[Variable(f"x{i}") for i in range(self.B.shape[0])],
            action=[Variable(f"u{i}") for i in range(self.B.shape[1])],
            time_step=1.0,
        )

    def model(self, dtype: torch.dtype = torch.float64) -> KnownDynamics:
        """Return the system as a model: one known world, or as many as are drawn where the drift is unknown."""
        A, B = self.A.to(dtype), self.B.to(dtype)

        def move(x: Tensor, u: Tensor, _context: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
            return x @ A.mT + u @ B.mT + parameters["drift"]

        value = Normal(torch.zeros_like(self.drift), self.drift) if self.uncertain else torch.zeros_like(self.drift)
        structure = FromFunction(move, schema=self.schema, parameters={"drift": Parameter(value)}, name="linear")
        return KnownDynamics(structure=structure, noise=self.noise.tolist(), dtype=dtype)

    def joint(self, start: Tensor, actions: Tensor) -> JointMoments:
        """Return the exact joint moments of a trajectory.

        Parameters
        ----------
        start : Tensor, shape (S,)
            The known start.
        actions : Tensor, shape (H, A)
            What is done.

        Returns
        -------
        JointMoments
        """
        A, B, start, actions = (v.double() for v in (self.A, self.B, start, actions))
        steps, size = len(actions), len(A)
        x, noise, drift = start, A.new_zeros(size, steps * size), A.new_zeros(size, size)
        means, noises, drifts = [A.new_zeros(0)], [noise[:0]], [drift[:0]]
        for t in range(steps):
            x, noise, drift = A @ x + B @ actions[t], A @ noise, A @ drift + torch.eye(size, dtype=A.dtype)
            noise[:, t * size : (t + 1) * size] += self.noise.double().diag()
            means.append(x)
            noises.append(noise)
            drifts.append(drift * self.drift.double())
        by_noise, by_drift = torch.cat(noises), torch.cat(drifts)
        return JointMoments(torch.cat(means), by_noise @ by_noise.mT, by_drift @ by_drift.mT)
