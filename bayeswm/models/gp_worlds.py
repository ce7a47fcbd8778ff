"""Worlds of a Gaussian process: functions drawn from it, on top of a mean structure."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import DataWarning
from bayeswm.base.laws import Gaussian
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Transitions
from bayeswm.base.worlds import MarkovWorlds
from bayeswm.inference.gp_algebra import Kernel
from bayeswm.inference.gp_exact import ExactPosterior, Hyper
from bayeswm.inference.pathwise import Posterior, Support, evaluate_paths
from bayeswm.models.gp_inputs import Inputs


@dataclasses.dataclass(frozen=True, eq=False)
class Residual:
    """What the mean structure misses, as a process on standardised inputs and outputs."""

    columns: Inputs
    mean: Structure | None
    posterior: Posterior
    """Given data, in standardised units."""
    input_mean: Tensor
    input_scale: Tensor
    output_scale: Tensor
    output_shift: Tensor
    mixing: Tensor | None = None
    """What mixes independent processes to coregionalised outputs, (S, S)."""

    @property
    def schema(self) -> Schema:
        """Variables."""
        return self.columns.schema

    @classmethod
    def standardised(
        cls, schema: Schema, mean: Structure | None, kernel: Kernel, *, data: Transitions, constant: bool
    ) -> Residual:
        """Take scales, and with a constant the shift, from training data; hyper-parameters are still to be found."""
        columns, bound = Inputs.bind(schema, kernel)
        inputs, size = len(columns.names), schema.state.size
        one = torch.ones(size, dtype=torch.float64, device=data.state.device)
        hyper = Hyper(one[:, None].expand(-1, bound.size(inputs)), one)
        blank = ExactPosterior(bound, one.new_empty(0, inputs), one.new_empty(size, 0), hyper)
        raw = cls(columns, mean, blank, one.new_zeros(inputs), one.new_ones(inputs), one, 0 * one)
        x, y = raw.inputs(data.state, data.action, data.context), raw.outputs(data)
        center = x.mean(0)
        spread = (x - center).square().mean(0).sqrt()
        still = spread <= 1e-9 * x.abs().amax(0).clamp(min=1e-30)
        if len(x) > 1 and bool(still.any()):
            named = [columns.names[i] for i in still.nonzero()[:, 0].tolist()]
            warnings.warn(f"constant input column(s) {', '.join(named)}: scale 1 is used", DataWarning, stacklevel=3)
        spread = torch.where(still, 1.0, spread)
        center[columns.features :], spread[columns.features :] = 0.0, 1.0  # a period is in the input's own units
        shift = y.mean(-1) if constant else 0 * one
        y = y - shift[:, None]
        # with a constant, what is usual: divided by n - 1
        scale = (y.square().sum(-1) / max(len(x) - constant, 1)).sqrt()
        # what is left by rounding is nothing to learn
        nothing = scale <= 1e-12 * data.next_state.double().abs().amax(0).clamp(min=1e-30)
        if bool(nothing.any()):
            named = [schema.state.columns[i] for i in nothing.nonzero()[:, 0].tolist()]
            text = f"nothing to learn in {', '.join(named)}: the mean explains every step"
            warnings.warn(f"{text}; the size of the changes, or 1, is the scale", DataWarning, stacklevel=3)
            change = schema.state.difference(data.next_state.double(), data.state.double()).square().mean(0).sqrt()
            scale = torch.where(nothing, torch.where(change > 0, change, 1.0), scale)
        posterior = dataclasses.replace(blank, x=(x - center) / spread, y=y / scale[:, None])
        return cls(columns, mean, posterior, center, spread, scale, shift)

    def inputs(self, state: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """Return standardised inputs, shape (*batch, D)."""
        given = (v.to(self.input_mean) for v in (state, action, context))
        return (self.columns(*given) - self.input_mean) / self.input_scale

    def outputs(self, data: Transitions) -> Tensor:
        """Return scaled, unmixed differences between what came and what the mean says, shape (S, n)."""
        known = self.known(data.state.double(), data.action.double(), data.context.double(), data.step)
        scaled = (self.schema.state.difference(data.next_state.double(), known) / self.output_scale).mT.contiguous()
        return scaled if self.mixing is None else torch.linalg.solve(self.mixing, scaled)

    def changes(self, values: Tensor) -> Tensor:
        """Return what values of the processes (..., S) mean in the state's units."""
        return (values if self.mixing is None else values @ self.mixing.mT) * self.output_scale

    def covariance(self, variance: Tensor) -> Tensor:
        """Return the state's covariance (..., S, S) given variances of the processes (..., S)."""
        if self.mixing is None:
            return torch.diag_embed(variance * self.output_scale.square())
        mixing = self.output_scale[:, None] * self.mixing
        return (mixing * variance[..., None, :]) @ mixing.mT

    def to(self, target: torch.device | str | torch.dtype) -> Residual:
        """Return this on another device or in another number format, all but the posterior."""
        moved = {
            field.name: value.to(target)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)

    @property
    def noise(self) -> Tensor:
        """Standard deviations of the process noise in the state's units, shape (S,)."""
        return self.covariance(self.posterior.hyper.noise.square()).diagonal().sqrt()

    def known(self, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor) -> Tensor:  # noqa: PLR0917
        """Return the next state by the mean structure and the constant, shape (*batch, S)."""
        if self.mean is None:
            return state + self.output_shift
        values = {
            # the dtype at once: a float would become float32 on the way
            k: torch.as_tensor(p.value, dtype=state.dtype, device=state.device)
            for k, p in self.mean.parameters().items()
        }
        return self.mean.transition(values, state, action, context, step)[0] + self.output_shift


class GaussianProcessWorlds(MarkovWorlds):
    """Functions drawn from the posterior of a Gaussian process, each with its process noise.

    Parameters
    ----------
    residual : Residual
        What they were drawn from.
    parameters : mapping of str to Tensor, shape (worlds, ...)
        ``frequency``, ``phase``, ``amplitude`` and ``update`` of the functions in standardised units, and
        ``process_noise`` (worlds, S) in the state's.
    log_weight : Tensor, shape (worlds,), optional
        Equal weights by default.
    support : Support, optional
        What the functions are evaluated with; the residual's posterior by default.
    """

    def __init__(
        self,
        residual: Residual,
        parameters: Mapping[str, Tensor],
        *,
        log_weight: Tensor | None = None,
        exhaustive: bool = False,
        support: Support | None = None,
    ) -> None:
        self.residual, self.schema, self.parameters = residual, residual.schema, dict(parameters)
        noise = self.parameters["process_noise"]
        if log_weight is None:
            log_weight = noise.new_zeros(len(noise))
        self.log_weight = torch.log_softmax(log_weight.double(), 0)
        self.exhaustive = exhaustive
        self.noise_size = residual.schema.state.size
        self._support = Support.of(residual.posterior) if support is None else support

    @override
    def transition(
        self, carry: Tensor, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0
    ) -> Gaussian:
        if context is None:
            context = action.new_empty(*action.shape[:-1], 0)
        r = self.residual
        state = carry
        # one state in all worlds, as at the start: inputs and kernel are computed once
        if all(_same_in_all_worlds(v, carry.ndim) for v in (carry, action, context)):
            state, action, context = (v[:1] if v.ndim == carry.ndim else v for v in (carry, action, context))
        points = r.inputs(state, action, context)
        full = points.shape[1:-1]
        values = evaluate_paths(self._support, self.parameters, points.reshape(len(points), -1, points.shape[-1]))
        known = r.known(state, action, context, step)
        mean = known + r.changes(values.view(len(values), *full, -1))
        scale = self.parameters["process_noise"].view(len(self), *(1,) * (mean.ndim - 2), -1)
        return Gaussian(mean, scale)

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        return type(self)(
            self.residual, parameters, log_weight=log_weight, exhaustive=exhaustive, support=self._support
        )

    @override
    def to(self, target: torch.device | str | torch.dtype) -> Self:
        moved = super().to(target)
        moved.residual, moved._support = self.residual.to(target), self._support.to(target)
        return moved


def _same_in_all_worlds(values: Tensor, ndim: int) -> bool:
    return values.ndim < ndim or len(values) == 1 or values.stride(0) == 0
