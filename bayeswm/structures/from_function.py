"""A structure from one pure function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, override

from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Parameter, Parameters, Structure
from bayeswm.structures.integrators import Integrator


class FromFunction(Structure):
    """A structure from a pure function of (state, action[, context[, parameters]]), written for one world.

    Parameters
    ----------
    fn : callable
        Takes states (*batch, S), actions (*batch, A) and, if it has a third and a fourth argument, context (*batch, C)
        and a dictionary of parameters. Returns the next state, or with an ``integrator`` the rate of change.
        Instead of the next state alone it may return a tuple of it and the standard deviation of the process noise.
    schema : Schema
        Variables and time step.
    parameters : mapping of str to float, Distribution or Parameter, optional
        Named parameters, known or uncertain.
    integrator : Integrator, optional
        Makes a transition of a rate of change.
    pairs : sequence of (int, int)
        The columns of each position and of its velocity, for integrators that treat them differently.
    name : str, optional
        Under which a saved model asks for it; the function's name by default.

    Raises
    ------
    SpecError
        If the function takes another number of arguments.

    Examples
    --------
    A spring that is known roughly, with laws, units and a constraint:

    >>> import torch
    >>> from torch.distributions import HalfNormal, LogNormal
    >>> from bayeswm.base.schema import Variable
    >>> from bayeswm.structures import RK4
    >>> def spring(x, u, c, p):
    ...     force = u[..., 0] - p["stiffness"] * x[..., 0] - p["damping"] * x[..., 1]
    ...     return torch.stack((x[..., 1], force / p["mass"]), -1)
    >>> state = [Variable("x", unit="m"), Variable("v", unit="m/s")]
    >>> schema = Schema(state=state, action=[Variable("u", unit="N")], time_step=0.1)
    >>> stiffness = Parameter(LogNormal(0.7, 0.3), unit="N/m", positive=True)
    >>> parameters = {"stiffness": stiffness, "damping": HalfNormal(0.1), "mass": 1.0}
    >>> structure = FromFunction(spring, schema=schema, parameters=parameters, integrator=RK4())
    >>> [name for name, parameter in structure.parameters().items() if parameter.uncertain]
    ['stiffness', 'damping']
    """

    def __init__(
        self,
        fn: Callable[..., Tensor | tuple[Tensor, Tensor]],
        *,
        schema: Schema,
        parameters: Mapping[str, float | Distribution | Parameter] | None = None,
        integrator: Integrator | None = None,
        pairs: Sequence[tuple[int, int]] = (),
        name: str | None = None,
    ) -> None:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.arity = sum(p.kind in kinds for p in inspect.signature(fn).parameters.values())
        if self.arity not in (2, 3, 4):
            raise SpecError(
                f"expected fn(state, action[, context[, parameters]]), got {self.arity} positional arguments"
            )
        if parameters and self.arity != 4:
            raise SpecError("expected fn(state, action, context, parameters), since there are parameters")
        self.fn = fn
        self.integrator, self.pairs = integrator, tuple(pairs)
        self._name = name or getattr(fn, "__name__", type(fn).__name__)
        self._schema = schema
        given = parameters or {}
        self._parameters = {k: v if isinstance(v, Parameter) else Parameter(v) for k, v in given.items()}
        self.check_parameters()

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def parameters(self) -> dict[str, Parameter]:
        return dict(self._parameters)

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor | None]:
        rest: tuple[Any, ...] = (action, context, parameters)[: self.arity - 1]
        if self.integrator is None:
            result = self.fn(state, *rest)
            return result if isinstance(result, tuple) else (result, None)
        return self.integrator(
            lambda x: cast(Tensor, self.fn(x, *rest)), state, self._schema.time_step, self.pairs
        ), None
