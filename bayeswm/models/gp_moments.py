"""A step of a Gaussian process from a Gaussian belief, in closed form where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.base.kinds import Angle, Real
from bayeswm.base.moments import Moments
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Trigonometric
from bayeswm.inference.gaussian_waves import with_waves
from bayeswm.inference.gp_moments import RBFMoments
from bayeswm.models.gp_worlds import Residual


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """Moments of a step whose mean is linear in inputs, sines and cosines, with a process of RBF kernels on top.

    Attributes
    ----------
    schema : Schema
        Variables.
    function : RBFMoments
        The process, in the units of inputs and outputs.
    turning : tuple of int
        Columns of state, action and context of which sine and cosine matter; inputs, their sines, their cosines are
        the features.
    seen : Tensor, shape (D,), optional
        Features that are inputs of the process; all by default.
    known : Tensor, shape (S, features)
        The mean structure by features.
    constant : Tensor, shape (S,)
        What it adds.
    mixing : Tensor, shape (S, S), optional
        What mixes the process's outputs.
    noise : Tensor, shape (S, S)
        Covariance of the process noise.
    """

    schema: Schema
    function: RBFMoments
    turning: tuple[int, ...]
    seen: Tensor | None
    known: Tensor
    constant: Tensor
    mixing: Tensor | None
    noise: Tensor

    @classmethod
    def of(cls, residual: Residual) -> Self | None:
        """Return the closed form, or None where there is none.

        Kernels must be RBFs, all variables numbers or angles, and the mean structure a linear map of inputs, sines and
        cosines.
        """
        schema = residual.schema
        variables = [*schema.state, *schema.action, *schema.context]
        function = RBFMoments.of(residual.posterior)
        mean = _mean(residual)
        if function is None or mean is None or not all(isinstance(v.kind, Real | Angle) for v in variables):
            return None
        waves = ((mean.sine != 0) | (mean.cosine != 0)).any(0).tolist()
        angle = [isinstance(v.kind, Angle) for v in variables]
        turning = tuple(i for i in range(len(variables)) if angle[i] or waves[i])
        place = {column: len(variables) + i for i, column in enumerate(turning)}
        seen: list[int] = []
        for column in range(len(variables)):
            seen += [place[column], place[column] + len(turning)] if angle[column] else [column]
        chosen, mixing, scale = list(turning), None, residual.output_scale
        if residual.mixing is not None:
            mixing, scale = scale[:, None] * residual.mixing, torch.ones_like(scale)
        return cls(
            schema,
            function.in_units(mean=residual.input_mean, scale=residual.input_scale, output_scale=scale),
            turning,
            torch.tensor(seen, device=scale.device) if turning else None,
            torch.cat((mean.linear, mean.sine[:, chosen], mean.cosine[:, chosen]), -1),
            mean.constant + residual.output_shift,
            mixing,
            residual.noise.square().diag(),
        )

    def __call__(
        self, mean: Tensor, covariance: Tensor, *, action: Tensor | None = None, context: Tensor | None = None
    ) -> Moments:
        """Return the moments; arguments as of :meth:`bayeswm.base.DynamicsModel.moments`.

        Raises
        ------
        DataError
            For wrong shapes or numbers that are not finite.
        """
        mean, covariance, believed = self._belief(mean, covariance, action=action, context=context)
        features, spread = with_waves(mean, covariance, self.turning)
        if self.seen is None:
            across, f = spread, self.function(features, spread)
        else:
            across = spread[..., self.seen]
            f = self.function(features[..., self.seen], across[..., self.seen, :])
        gain, value, within, between = f.gain, f.mean, f.covariance, torch.diag_embed(f.variance)
        if self.mixing is not None:
            gain, value = gain @ self.mixing.mT, value @ self.mixing.mT
            within, between = (self.mixing @ v @ self.mixing.mT for v in (within, between))
        learned, base = across @ gain, spread @ self.known.mT
        half = self.known @ (0.5 * base + learned)
        aleatoric = half + half.mT + within + self.noise
        return Moments(
            features @ self.known.mT + self.constant + value,
            aleatoric + between,
            (base + learned)[..., :believed, :],
            aleatoric,
        )

    def _belief(
        self, mean: Tensor, covariance: Tensor, *, action: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, Tensor, int]:
        """Return the belief about state, action and context together, and how many columns it was about."""
        schema = self.schema
        certain = [("action", action, schema.action.size)] if action is not None else []
        size = schema.state.size + (0 if certain else schema.action.size)
        certain += [("context", context, schema.context.size)] if schema.context.size or context is not None else []
        mean, covariance = (torch.as_tensor(v).to(self.constant) for v in (mean, covariance))
        if mean.shape[-1:] != (size,) or covariance.shape[-2:] != (size, size):
            what = "the state" if action is not None else "state and action"
            raise DataError(
                f"expected a belief about {what}, mean (*batch, {size}) and covariance (*batch, {size}, {size}), "
                f"got {tuple(mean.shape)} and {tuple(covariance.shape)}"
            )
        given = [mean]
        for name, values, columns in certain:
            if values is None or torch.as_tensor(values).shape[-1:] != (columns,):
                got = "none" if values is None else tuple(torch.as_tensor(values).shape)
                raise DataError(f"expected {name} of shape (*batch, {columns}), got {got}")
            given.append(torch.as_tensor(values).to(mean))
        if not all(bool(v.detach().isfinite().all()) for v in (*given, covariance)):
            raise DataError("expected finite mean, covariance, action and context, got NaN or infinity")
        try:
            batch = torch.broadcast_shapes(covariance.shape[:-2], *(v.shape[:-1] for v in given))
        except RuntimeError:
            shapes = [tuple(v.shape[:-1]) for v in given]
            raise DataError(f"expected batch shapes that fit, got {[*shapes, tuple(covariance.shape[:-2])]}") from None
        covariance = (0.5 * (covariance + covariance.mT)).expand(*batch, size, size)
        if len(given) == 1:
            return mean.expand(*batch, size), covariance, size
        mean = torch.cat([v.expand(*batch, v.shape[-1]) for v in given], -1)
        more = mean.shape[-1] - size
        return mean, torch.nn.functional.pad(covariance, (0, more, 0, more)), size


def _mean(residual: Residual) -> Trigonometric | None:
    schema, like = residual.schema, residual.output_scale
    if residual.mean is None:
        size = schema.state.size
        none = like.new_zeros(size, size + schema.action.size + schema.context.size)
        return Trigonometric(
            torch.eye(*none.shape, dtype=none.dtype, device=none.device), none, none, like.new_zeros(size)
        )
    return residual.mean.trigonometric(residual.mean_values(like))
