"""Linear dynamics in discrete time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayeswm.base.errors import SpecError
from bayeswm.base.priors import decode, encode
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Parameter, Parameters, Structure, Trigonometric

Value = float | Tensor | Distribution


class Linear(Structure):
    """A linear map of state and action, x' = A x + B u + c.

    Each of A, B and c is a tensor, a number for all entries, or a law (of its full shape, or of one entry: then
    entries are independent). Angles enter unwrapped, as the numbers that they are.

    Parameters
    ----------
    schema : Schema, optional
        Variables of state and action; no context. Those of the training data by default (see :meth:`bind`).
    A : float or Tensor or Distribution, shape (S, S), optional
        By default the law Normal(identity, 1).
    B : float or Tensor or Distribution, shape (S, A), optional
        By default the law Normal(0, 1); it is left out where there is no action.
    c : float or Tensor or Distribution, shape (S,)
        Offset.

    Raises
    ------
    SpecError
        If the schema has a context, or a shape differs.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> schema = Schema(state=[Variable("x")], action=[Variable("u")], time_step=0.1)
    >>> drift = Linear(schema, A=torch.tensor([[0.9]]), B=0.1)
    >>> values = {k: torch.as_tensor(p.value) for k, p in drift.parameters().items()}
    >>> drift.transition(values, torch.tensor([1.0]), torch.tensor([2.0]), torch.zeros(0), 0)[0]
    tensor([1.1000])

    For whatever variables the data have, with an offset to learn:

    >>> line = Linear(c=Normal(0.0, 10.0))
    >>> line.schema, list(line.bind(schema).parameters())
    (None, ['A', 'B', 'c'])
    """

    def __init__(
        self, schema: Schema | None = None, *, A: Value | None = None, B: Value | None = None, c: Value = 0.0
    ) -> None:
        self._schema, self._given = schema, {"A": A, "B": B, "c": c}
        self.values: dict[str, Tensor | Distribution] = {}
        if schema is None:
            return
        if schema.context.size:
            raise SpecError(f"Linear: expected no context, got ({', '.join(schema.context.columns)}); use FromFunction")
        s, a = schema.state.size, schema.action.size
        zeros, identity = (torch.zeros(s, a, dtype=torch.float64), torch.eye(s, dtype=torch.float64))
        given: dict[str, tuple[Value, tuple[int, ...]]] = {
            "A": (Normal(identity, 1.0) if A is None else A, (s, s)),
            "B": (Normal(zeros, 1.0) if B is None else B, (s, a)),
            "c": (c, (s,)),
        }
        self.values = {name: _shaped(name, value, shape) for name, (value, shape) in given.items() if 0 not in shape}
        self.check_parameters()

    @property
    @override
    def schema(self) -> Schema | None:
        return self._schema

    @override
    def bind(self, schema: Schema) -> Structure:
        return super().bind(schema) if self._schema is not None else Linear(schema, **self._given)

    @override
    def parameters(self) -> dict[str, Parameter]:
        if self._schema is None:
            raise SpecError("expected a linear map bound to variables; fit a model of it, or call .bind(schema)")
        return {name: Parameter(value) for name, value in self.values.items()}

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, None]:
        mean = state @ parameters["A"].mT + parameters["c"]
        return (mean + action @ parameters["B"].mT if "B" in parameters else mean), None

    @override
    def trigonometric(self, parameters: Parameters) -> Trigonometric:
        """Return the step itself, without sines and cosines."""
        linear = torch.cat([parameters[name] for name in ("A", "B") if name in parameters], -1)
        return Trigonometric(linear, torch.zeros_like(linear), torch.zeros_like(linear), parameters["c"])

    @override
    def lipschitz_bound(self, parameters: Parameters, scale: Tensor) -> Tensor:
        """Return the spectral norm of A in units of ``scale``: no bound is closer."""
        return torch.linalg.matrix_norm(parameters["A"] * scale / scale[:, None], 2)

    @override
    def config(self) -> dict[str, Any]:
        if self._schema is None:
            return {"schema": None, **{name: encode(value) for name, value in self._given.items()}}
        return {"schema": self._schema.to_dict(), **{name: encode(value) for name, value in self.values.items()}}

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        values = {name: decode(value) for name, value in config.items() if name != "schema"}
        schema = config["schema"]
        return cls(None if schema is None else Schema.from_dict(schema), **values)


def _shaped(name: str, value: Value, shape: tuple[int, ...]) -> Tensor | Distribution:
    if isinstance(value, Distribution):
        found = tuple(value.batch_shape + value.event_shape)
        if not found:
            return value.expand(torch.Size(shape))
    else:
        value = torch.as_tensor(value)
        value = value if value.is_floating_point() else value.double()
        found = tuple(value.shape)
        if not found:
            return value.expand(shape).clone()
    if found != shape:
        raise SpecError(f"Linear: expected {name} of shape {shape}, got {found}")
    return value
