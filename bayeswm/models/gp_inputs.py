"""What a Gaussian process sees of state, action and context, and which of it each kernel looks at."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.kinds import Angle, Real
from bayeswm.base.schema import Schema, Variable
from bayeswm.inference.gp_algebra import Kernel
from bayeswm.inference.gp_kernels import RBF, Matern
from bayeswm.inference.gp_leaf import entries
from bayeswm.inference.gp_periodic import Periodic


@dataclass(frozen=True)
class Inputs:
    """Columns of the inputs: features without jumps of all variables, then those that a periodic kernel takes raw.

    Attributes
    ----------
    schema : Schema
        Variables.
    raw : tuple of int
        Columns of state, action and context, in this order, that follow the features as they are.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> angle = bwm.Variable("angle", kind="angle")
    >>> schema = bwm.Schema(state=[angle, bwm.Variable("speed")], time_step=0.1)
    >>> inputs, kernel = Inputs.bind(schema, RBF(active="speed") * Periodic(active="angle"))
    >>> inputs.names, [k.columns for k in kernel.children]
    (('sin angle', 'cos angle', 'speed', 'angle'), [(2,), (3,)])
    """

    schema: Schema
    raw: tuple[int, ...] = ()

    @classmethod
    def bind(cls, schema: Schema, kernel: Kernel) -> tuple[Inputs, Kernel]:
        """Return the inputs that a kernel needs, and the kernel with columns for its names.

        An index in ``active`` counts the columns of state, action and context.

        Raises
        ------
        SpecError
            If a periodic kernel has neither named inputs nor an angle, or is to look at classes or rotations.
        UnknownVariableError
            For a name that the schema does not have.
        """
        raw = tuple(sorted({c for leaf in _leaves(kernel) if isinstance(leaf, Periodic) for c in _raw(schema, leaf)}))
        inputs = cls(schema, raw)

        def with_columns(leaf: Kernel) -> Kernel:
            if isinstance(leaf, Periodic):
                columns = tuple(inputs.features + raw.index(c) for c in _raw(schema, leaf))
            elif isinstance(leaf, RBF | Matern):
                chosen = _chosen(schema, leaf)
                columns = tuple(c for v in chosen for c in inputs._slices[v.name]) if chosen else None
                columns = tuple(range(inputs.features)) if columns is None else columns
            else:
                return leaf
            return dataclasses.replace(leaf, columns=columns)

        return inputs, kernel.map(with_columns)

    @cached_property
    def features(self) -> int:
        """How many columns come before the raw ones."""
        s = self.schema
        return s.state.embedding_size + s.action.embedding_size + s.context.embedding_size

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        found = [n for v in _variables(self.schema) for n in _features(v)]
        return (*found, *(_columns(self.schema)[c] for c in self.raw))

    @cached_property
    def _slices(self) -> dict[str, range]:
        found, start = {}, 0
        for v in _variables(self.schema):
            found[v.name] = range(start, start + v.kind.embedding_size)
            start += v.kind.embedding_size
        return found

    def __call__(self, state: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """Return the inputs, shape (*batch, D)."""
        s = self.schema
        batch = torch.broadcast_shapes(state.shape[:-1], action.shape[:-1], context.shape[:-1])
        given = (state, action, context)
        parts = [g.embed(p) for g, p in zip((s.state, s.action, s.context), given, strict=True)]
        if self.raw:
            parts.append(torch.cat([p.expand(*batch, p.shape[-1]) for p in given], -1)[..., list(self.raw)])
        return torch.cat([p.expand(*batch, p.shape[-1]) for p in parts if p.shape[-1]], -1)


def _variables(schema: Schema) -> tuple[Variable, ...]:
    return (*schema.state, *schema.action, *schema.context)


def _columns(schema: Schema) -> tuple[str, ...]:
    return (*schema.state.columns, *schema.action.columns, *schema.context.columns)


def _features(variable: Variable) -> tuple[str, ...]:
    if isinstance(variable.kind, Angle):
        return (f"sin {variable.name}", f"cos {variable.name}")
    size = variable.kind.embedding_size
    if size == len(variable.columns):
        return variable.columns
    return tuple(f"{variable.name} {i}" for i in range(size))


def _leaves(kernel: Kernel) -> list[Kernel]:
    return [leaf for child in kernel.children for leaf in _leaves(child)] if kernel.children else [kernel]


def _chosen(schema: Schema, leaf: RBF | Matern | Periodic) -> list[Variable]:
    """Return the variables that a kernel names."""
    variables, columns = {v.name: v for v in _variables(schema)}, _columns(schema)
    owner = [v for v in _variables(schema) for _ in v.columns]
    found: list[Variable] = []
    for entry in entries(leaf):
        if isinstance(entry, int):
            if not 0 <= entry < len(columns):
                raise SpecError(f"expected active= indices below {len(columns)} ({', '.join(columns)}), got {entry}")
            variable = owner[entry]
        elif entry in variables:
            variable = variables[entry]
        else:
            raise UnknownVariableError.of(entry, tuple(variables))
        if variable not in found:
            found.append(variable)
    return found


def _raw(schema: Schema, leaf: Periodic) -> list[int]:
    """Return the columns that a periodic kernel looks at."""
    chosen = _chosen(schema, leaf) or [v for v in _variables(schema) if isinstance(v.kind, Angle)]
    if not chosen:
        raise SpecError(f"expected the inputs of {leaf!r}, since there is no angle: Periodic(active=..., period=...)")
    wrong = [v.name for v in chosen if not isinstance(v.kind, Real | Angle)]
    if wrong:
        raise SpecError(f"expected real or angle inputs of {leaf!r}, got {wrong[0]}, which is neither")
    return [_columns(schema).index(v.name) for v in chosen]
