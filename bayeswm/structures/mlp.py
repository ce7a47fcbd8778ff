"""A multilayer perceptron that predicts the change of state and its noise."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self, override

import torch
from torch import Tensor
from torch.distributions import Normal

from bayeswm.base.errors import DataWarning, SpecError
from bayeswm.base.kinds import Angle
from bayeswm.base.random import standard_normal
from bayeswm.base.schema import Schema
from bayeswm.base.shapes import common_shape
from bayeswm.base.structure import Parameter, Parameters, Structure
from bayeswm.base.trajectories import Transitions
from bayeswm.structures import networks
from bayeswm.structures.networks import Sizes, Workspace, evaluate, run, run_back

# bounds of the noise variance, in units of the variance of the change of state
_LOWEST, _HIGHEST = math.exp(-14.0), math.exp(3.0)
# the largest slope of SiLU, at 2.3994, rounded up
_STEEPEST = 1.09984


class MLP(Structure):
    """A network with SiLU units that maps state, action and context to the mean change of state and its noise.

    Angles enter as sine and cosine. Inputs and outputs are standardised inside, from the training data. The variance of
    the noise depends on the inputs; a soft clamp keeps it between e^-14 and e^3 of the variance of the change of state,
    with a gradient everywhere. The mean stays inside the bounds of variables that have them: a speed limit is a kink
    that a smooth network needs many data to learn.

    Parameters
    ----------
    hidden : sequence of int
        Units of each hidden layer.
    schema : Schema, optional
        Variables; those of the training data by default (see :meth:`bind`).
    prior_scale : float
        Scale of the network's prior, for Bayesian inference: weights N(0, prior_scale^2 / inputs of their layer),
        biases N(0, prior_scale^2) (Neal 1996, chapter 2: functions then vary alike whatever the width). With 1,
        changes and log variances before data are of the order of the changes seen. Gradient training does not use it.

    Raises
    ------
    SpecError
        If a layer has no unit, a state variable is neither real nor an angle, or the prior's scale is not positive.

    Examples
    --------
    >>> from bayeswm.structures import Pendulum
    >>> net = MLP(hidden=(32, 32)).bind(Pendulum().schema)
    >>> net.sizes  # sine, cosine, velocity, torque -> two means and two log variances
    (4, 32, 32, 4)
    """

    def __init__(
        self, *, hidden: Sequence[int] = (200, 200), schema: Schema | None = None, prior_scale: float = 1.0
    ) -> None:
        self.hidden = tuple(int(h) for h in hidden)
        if not self.hidden or min(self.hidden) < 1:
            raise SpecError(f"expected hidden layers of at least 1 unit, got {tuple(hidden)}")
        if schema is not None and not schema.state.flat:
            raise SpecError("expected state variables of kind real or angle; this network cannot predict other kinds")
        if not 0 < prior_scale < math.inf:
            raise SpecError(f"expected prior_scale > 0, got {prior_scale}")
        self._schema, self.prior_scale = schema, float(prior_scale)

    @property
    @override
    def schema(self) -> Schema | None:
        return self._schema

    @override
    def bind(self, schema: Schema) -> Structure:
        if self._schema is not None:
            return super().bind(schema)
        return MLP(hidden=self.hidden, schema=schema, prior_scale=self.prior_scale)

    @property
    def _bound(self) -> Schema:
        if self._schema is None:
            raise SpecError("expected a network bound to variables; fit a model of it, or call .bind(schema)")
        return self._schema

    @property
    def sizes(self) -> Sizes:
        """Units of each layer, inputs and outputs included."""
        s = self._bound
        features = s.state.embedding_size + s.action.embedding_size + s.context.embedding_size
        return (features, *self.hidden, 2 * s.state.tangent_size)

    @override
    def parameters(self) -> dict[str, Parameter]:
        features, *_, outputs = self.sizes
        changes = outputs // 2
        return {
            "network": Parameter(self._prior()),
            "input_mean": Parameter(torch.zeros(features), trained=False),
            "input_scale": Parameter(torch.ones(features), positive=True, trained=False),
            "change_mean": Parameter(torch.zeros(changes), trained=False),
            "change_scale": Parameter(torch.ones(changes), positive=True, trained=False),
        }

    def _prior(self) -> Normal:
        sizes = tuple(itertools.pairwise(self.sizes))
        layers = [
            torch.cat((torch.full((i * o,), i**-0.5, dtype=torch.float64), torch.ones(o, dtype=torch.float64)))
            for i, o in sizes
        ]
        scale = self.prior_scale * torch.cat(layers)
        return Normal(torch.zeros_like(scale), scale)

    @override
    def initial(self, worlds: int, generator: torch.Generator | None, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return networks to begin a training with, which are not draws from the prior (see :meth:`sample`).

        Weights N(0, 1 / inputs), truncated by nothing, biases 0, last layer ten times smaller.
        """
        if generator is None:
            raise SpecError("expected generator=torch.Generator to draw initial networks, got none")
        scales = {k: p.value for k, p in self.parameters().items() if isinstance(p.value, Tensor)}
        out = {k: v.to(dtype).expand(worlds, *v.shape).clone() for k, v in scales.items()}
        rows = []
        for i, o in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            last = len(rows) == 2 * len(self.hidden)
            scale = (0.1 if last else 1.0) / math.sqrt(i)
            rows += [
                scale * standard_normal((worlds, i * o), generator, dtype=dtype),
                torch.zeros(worlds, o, dtype=dtype),
            ]
        out["network"] = torch.cat(rows, 1)
        return out

    @override
    def layers(self) -> dict[str, tuple[tuple[int, int], ...]]:
        return {"network": tuple(itertools.pairwise(self.sizes))}

    def features(self, state: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """Return the network's inputs before they are standardised, shape (..., features)."""
        s = self._bound
        batch = common_shape(state.shape[:-1], action.shape[:-1], context.shape[:-1])
        parts = (s.state.embed(state), s.action.embed(action), s.context.embed(context))
        return torch.cat([p.expand(*batch, p.shape[-1]) for p in parts if p.shape[-1]], -1)

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        lifted = {k: v[None] for k, v in parameters.items()}
        mean, scale = self.batched(lifted, state[None, None], action[None, None], context[None, None], step)
        return mean[0, 0], scale[0, 0]

    @override
    def batched(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        def wide(name: str) -> Tensor:
            return parameters[name][:, None]

        x = self.features(state, action, context)
        shape = (len(parameters["network"]), *x.shape[1:-1])  # states may be shared by all worlds
        x = (x.reshape(len(x), -1, x.shape[-1]) - wide("input_mean")) / wide("input_scale")
        out = evaluate(parameters["network"], x, self.sizes)
        mean, raw = out.chunk(2, -1)
        change = torch.addcmul(wide("change_mean"), wide("change_scale"), mean)
        scale = noise_variance(raw).sqrt() * wide("change_scale")
        after, bounds = state + change.reshape(*shape, -1), self._bounds(out.dtype, out.device)
        if bounds is not None:
            after = after.clamp(*bounds)
        return after, scale.reshape(*shape, -1)

    def _bounds(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Return the lowest and highest values of the state's columns, each of shape (S,), if there are any bounds."""
        limits = [None if isinstance(v.kind, Angle) else v.bounds for v in self._bound.state]
        if not any(limits):
            return None
        ends = torch.tensor([b or (-math.inf, math.inf) for b in limits], dtype=dtype, device=device)
        return ends[:, 0], ends[:, 1]

    @override
    def standardise(self, parameters: Parameters, data: Transitions) -> dict[str, Tensor]:
        """Return the parameters with the means and scales of these data, computed in float64.

        Warns
        -----
        DataWarning
            For inputs or changes that never vary: they keep their unit scale.
        """
        s, out = self._bound, dict(parameters)
        x = self.features(data.state.double(), data.action.double(), data.context.double())
        names = (*(f"state feature {i}" for i in range(s.state.embedding_size)), *s.action.columns, *s.context.columns)
        dy = s.state.difference(data.next_state.double(), data.state.double())
        for key, values, columns in (("input", x, names), ("change", dy, s.state.columns)):
            mean = values.mean(0)
            scale = (values - mean).square().mean(0).sqrt()
            constant = scale <= 1e-9 * values.abs().amax(0).clamp(min=1e-30)
            if bool(constant.any()) and len(values) > 1:
                named = [columns[i] if i < len(columns) else f"feature {i}" for i in constant.nonzero()[:, 0].tolist()]
                warnings.warn(
                    f"constant {key} column(s) {', '.join(named)}: scale 1 is used", DataWarning, stacklevel=2
                )
            scale = torch.where(constant, 1.0, scale)
            for name, value in (("mean", mean), ("scale", scale)):
                old = out[f"{key}_{name}"]
                out[f"{key}_{name}"] = value.to(old.dtype).expand_as(old).clone()
        return out

    @override
    def lipschitz_bound(self, parameters: Parameters, scale: Tensor) -> Tensor:
        """Return 1 + the product of the layers' spectral norms and of the largest slopes of SiLU.

        The network adds a change to the state. Sine and cosine together move as far as their angle.
        """
        inputs = [i for i, v in enumerate(self._bound.state) for _ in range(v.kind.embedding_size)]
        entry = scale[inputs] / parameters["input_scale"][:, : len(inputs)]
        leave = parameters["change_scale"] / scale
        matrices = [weights[:, :-1].mT for weights in networks.layers(parameters["network"], self.sizes)]
        matrices[0] = matrices[0][..., : len(inputs)] * entry[:, None]
        matrices[-1] = matrices[-1][:, : leave.shape[1]] * leave[..., None]
        norms = torch.stack([torch.linalg.matrix_norm(m, 2) for m in matrices])
        return 1 + norms.prod(0) * _STEEPEST ** len(self.hidden)

    @override
    def objective(self, parameters: Parameters, data: Transitions) -> MLPObjective:
        """Return the training loss on these data, with a gradient by hand."""
        return MLPObjective(self, parameters, data)

    @override
    def config(self) -> dict[str, Any]:
        schema = None if self._schema is None else self._schema.to_dict()
        return {"hidden": list(self.hidden), "schema": schema, "prior_scale": self.prior_scale}

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        schema = None if config["schema"] is None else Schema.from_dict(config["schema"])
        return cls(hidden=config["hidden"], schema=schema, prior_scale=config.get("prior_scale", 1.0))


class MLPObjective:
    """Mean negative log likelihood of standardised changes of state, for each member on its own rows.

    One pseudo-observation of a tenth of the usual change keeps the noise finite where data are few.

    Parameters
    ----------
    structure : MLP
        Bound network.
    parameters : mapping of str to Tensor, shape (members, ...)
        ``network`` is trained in place; the scales are fixed.
    data : Transitions
        Rows.
    """

    def __init__(self, structure: MLP, parameters: Parameters, data: Transitions) -> None:
        self.flat, self.sizes = parameters["network"], structure.sizes
        self.trained = {"network": self.flat}
        dtype = self.flat.dtype
        mean, scale = (parameters[f"input_{k}"][0].double() for k in ("mean", "scale"))
        x = structure.features(data.state.double(), data.action.double(), data.context.double())
        self.x = ((x - mean) / scale).to(dtype)
        mean, scale = (parameters[f"change_{k}"][0].double() for k in ("mean", "scale"))
        change = structure._bound.state.difference(data.next_state.double(), data.state.double())
        self.y = ((change - mean) / scale).to(dtype)
        bounds = structure._bounds(torch.float64, self.y.device)
        self.bounds: tuple[Tensor, Tensor] | None = None
        if bounds is not None:
            low, high = (((end - data.state.double() - mean) / scale).to(dtype) for end in bounds)
            self.bounds = (low, high)
        self.log_scale = scale.log().sum().to(dtype)
        self.prior = 1.0 / len(self.y)
        self._work: dict[int, Workspace] = {}

    def gradient(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return each member's loss (members,) on its rows (members, batch), and the gradient by ``network``."""
        batch = rows.shape[1]
        if batch not in self._work:
            self._work = {batch: Workspace(self.flat, self.sizes, batch)}
        work = self._work[batch]
        out = run(self.flat, self.x[rows], work)
        bounds = None if self.bounds is None else (self.bounds[0][rows], self.bounds[1][rows])
        loss = nll_gradient_(out, self.y[rows], self.prior, bounds)
        run_back(self.flat, work)
        return loss, {"network": work.gradient}

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return the log density of the changes of state at these rows, in their units, shape (members, n)."""
        out = evaluate(self.flat, self.x[rows].expand(len(self.flat), -1, -1), self.sizes)
        mean, raw = out.chunk(2, -1)
        if self.bounds is not None:
            mean = mean.clamp(self.bounds[0][rows], self.bounds[1][rows])
        variance = noise_variance(raw)
        square = (self.y[rows] - mean).square() / variance
        return -0.5 * (square + variance.log() + math.log(2 * math.pi)).sum(-1) - self.log_scale


def noise_variance(raw: Tensor) -> Tensor:
    """Return the clamped variance for an unbounded output: low + high sigmoid(raw - log high).

    This is the exponential of a log variance bent smoothly at both ends (max - softplus(max - raw), then
    min + softplus(. - min); Chua et al. 2018, PETS), written without the two softplus.

    Examples
    --------
    >>> noise_variance(torch.tensor([-100.0, 0.0, 100.0])).log().numpy().round(2).tolist()
    [-14.0, -0.05000000074505806, 3.0]
    """
    # not torch.sigmoid, whose derivative s (1 - s) rounds to 0 from about 17 on
    return torch.nn.functional.logsigmoid(raw - math.log(_HIGHEST)).exp() * _HIGHEST + _LOWEST


def nll_gradient_(  # noqa: PLR0917 (hot path)
    out: Tensor, target: Tensor, prior: float, bounds: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Return the mean Gaussian negative log likelihood of each member; its gradient replaces ``out``.

    Parameters
    ----------
    out : Tensor, shape (members, rows, 2 S)
        Means, then unbounded log variances.
    target : Tensor, shape (members, rows, S)
        Standardised changes.
    prior : float
        Weight of one pseudo-observation of variance 0.01 against a row.
    bounds : tuple of Tensor, shape (members, rows, S), optional
        The mean is clipped there; the gradient passes the clip, so that a mean outside can come back.

    Returns
    -------
    Tensor, shape (members,)
        In nats a value, without the constant.
    """
    mean, raw = out.chunk(2, -1)
    n = target.shape[-1] * target.shape[-2]
    share = torch.sigmoid(raw - math.log(_HIGHEST))
    above = share * _HIGHEST
    variance = above + _LOWEST
    error = (mean if bounds is None else mean.clamp(*bounds)) - target
    ratio = error / variance
    square = torch.addcmul((0.01 * prior) / variance, error, ratio)
    loss = 0.5 * (square + (1 + prior) * variance.log()).mean((1, 2))
    torch.mul(ratio, 1 / n, out=mean)
    by_variance = (1 + prior - square).div_(variance)
    below = torch.sigmoid(math.log(_HIGHEST) - raw)  # 1 - share, without its cancellation
    torch.mul(by_variance.mul_(above), below.mul_(0.5 / n), out=raw)
    return loss
