"""Hypothesis strategies for schemas, trajectories, systems with exact answers and predictives.

Examples
--------
>>> from hypothesis import given, settings
>>> from bayeswm.testing import strategies
>>> @settings(max_examples=5, database=None, deadline=None)
... @given(strategies.trajectories(missing=True))
... def test_nothing_is_lost(recorded):
...     assert len(recorded[0]) == 1 and recorded.transition_count > 0
>>> test_nothing_is_lost()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.kinds import Angle, Categorical, Kind, Rotation, categorical
from bayeswm.base.laws import Gaussian
from bayeswm.base.predictive import Predictive
from bayeswm.base.schema import Schema, Variable, Variables
from bayeswm.base.trajectories import Trajectories
from bayeswm.testing.linear_gaussian import LinearGaussianSystem

try:
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import arrays
except ImportError as error:
    raise ImportError(
        "bayeswm.testing.strategies needs Hypothesis, which is not installed: pip install 'bayeswm[dev]'"
    ) from error

__all__ = ["gaussian_mixtures", "kinds", "linear_gaussian_systems", "schemas", "trajectories"]


def kinds(names: Sequence[str] = ("real", "angle", "rotation", "categorical")) -> st.SearchStrategy[str | Kind]:
    """Return a strategy of kinds of variable, among the named ones."""
    return st.sampled_from(list(names)).flatmap(
        lambda name: st.integers(2, 4).map(categorical) if name == "categorical" else st.just(name)
    )


@st.composite
def schemas(
    draw: st.DrawFn,
    *,
    max_state: int = 3,
    max_action: int = 2,
    max_context: int = 2,
    kind: st.SearchStrategy[str | Kind] | None = None,
    observation: bool = False,
    reward: bool | None = None,
) -> Schema:
    """Return a strategy of schemas with at least one state variable.

    Parameters
    ----------
    max_state, max_action, max_context : int
        Variables of each group at most.
    kind : strategy, optional
        Kinds of the state and context variables; all kinds by default. Actions are real.
    observation : bool
        Whether some schemas have an observation apart from the state.
    reward : bool, optional
        Whether rewards are recorded; by default some schemas have them.
    """
    kind = kinds() if kind is None else kind
    count = draw(st.integers(1, max_state))
    groups: dict[str, Any] = {"state": [_variable(draw, f"x{i}", draw(kind)) for i in range(count)]}
    groups["action"] = [_variable(draw, f"u{i}", "real") for i in range(draw(st.integers(0, max_action)))]
    groups["context"] = [_variable(draw, f"c{i}", draw(kind)) for i in range(draw(st.integers(0, max_context)))]
    if observation and draw(st.booleans()):
        groups["observation"] = [_variable(draw, f"y{i}", "real") for i in range(draw(st.integers(1, 2)))]
    rewarded = draw(st.booleans()) if reward is None else reward
    step = draw(st.sampled_from([0.05, 1.0, 0.001, 10.0]))
    return Schema(**groups, reward=rewarded, time_step=step)


@st.composite
def trajectories(
    draw: st.DrawFn,
    schema: Schema | st.SearchStrategy[Schema] | None = None,
    *,
    max_episodes: int = 3,
    max_steps: int = 6,
    missing: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Trajectories:
    """Return a strategy of ragged trajectories that are valid for their schema.

    Parameters
    ----------
    schema : Schema or strategy of schemas, optional
        The variables; any by default.
    max_episodes, max_steps : int
        Episodes, and transitions of each, at most; at least one of both.
    missing : bool
        Leave out some state and observation values.
    dtype : torch.dtype
        Number format.
    """
    if not isinstance(schema, Schema):
        schema = draw(schemas() if schema is None else schema)
    lengths = draw(st.lists(st.integers(1, max_steps), min_size=1, max_size=max_episodes))
    rows: dict[str, list[Tensor]] = {"state": [], "action": []}
    static = draw(st.booleans())
    for steps in lengths:
        rows["state"].append(_values(draw, schema.state, steps + 1, dtype=dtype, missing=missing))
        rows["action"].append(_values(draw, schema.action, steps, dtype=dtype))
        if schema.observation is not None:
            seen = _values(draw, schema.observation, steps + 1, dtype=dtype, missing=missing)
            rows.setdefault("observation", []).append(seen)
        if schema.context:
            context = _values(draw, schema.context, 1 if static else steps, dtype=dtype)
            rows.setdefault("context", []).append(context[0] if static else context)
        if schema.reward:
            reward = draw(arrays(np.float64, (steps,), elements=st.floats(-10, 10)))
            rows.setdefault("reward", []).append(torch.from_numpy(reward).to(dtype))
    ended = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    return Trajectories(schema, **rows, terminated=ended, allow_missing=missing)


@st.composite
def linear_gaussian_systems(
    draw: st.DrawFn, *, max_state: int = 3, max_action: int = 2, uncertain: bool | None = None
) -> LinearGaussianSystem:
    """Return a strategy of stable linear systems with Gaussian noise, whose trajectories have exact moments.

    Parameters
    ----------
    max_state, max_action : int
        Variables at most.
    uncertain : bool, optional
        Whether a drift is unknown, so that there is epistemic variance; some of each by default.
    """
    size, inputs = draw(st.integers(1, max_state)), draw(st.integers(0, max_action))

    def matrix(*shape: int) -> Tensor:
        return torch.from_numpy(draw(arrays(np.float64, shape, elements=st.floats(-1, 1, width=16))))

    A = matrix(size, size)
    # a largest singular value below 1 keeps any horizon finite
    A = A / (torch.linalg.matrix_norm(A, 2) / 0.95).clamp(min=1.0)
    noise = torch.tensor(draw(st.lists(st.sampled_from([0.1, 0.0, 1.0, 0.01]), min_size=size, max_size=size)))
    unknown = draw(st.booleans()) if uncertain is None else uncertain
    sizes = st.lists(st.sampled_from([0.1, 1.0, 0.03]), min_size=size, max_size=size)
    drift = torch.tensor(draw(sizes)) if unknown else torch.zeros(size)
    return LinearGaussianSystem(A=A, B=matrix(size, inputs), noise=noise.double(), drift=drift.double())


@st.composite
def gaussian_mixtures(draw: st.DrawFn, *, max_worlds: int = 5, max_state: int = 3) -> Predictive:
    """Return a strategy of one-step predictives: weighted exhaustive worlds with Gaussian laws, without a batch."""
    worlds, size = draw(st.integers(1, max_worlds)), draw(st.integers(1, max_state))
    table = arrays(np.float64, (worlds, size), elements=st.floats(-1, 1, width=16))
    mean, log_scale = 10 * torch.from_numpy(draw(table)), 3 * torch.from_numpy(draw(table))
    weight = torch.from_numpy(draw(arrays(np.float64, (worlds,), elements=st.floats(0.01, 1))))
    law = Gaussian(mean[:, None], log_scale.exp()[:, None])
    variables = Variables(Variable(f"x{i}") for i in range(size))
    return Predictive(variables, [law], (weight / weight.sum()).log(), exhaustive=True, time_step=1.0)


def _variable(draw: st.DrawFn, name: str, kind: str | Kind) -> Variable:
    unit = "rad" if kind == "angle" else draw(st.sampled_from(["m", "", "N m"])) if kind == "real" else ""
    bounds = draw(st.sampled_from([None, (-2.0, 2.0), (0.0, 100.0)])) if kind == "real" else None
    return Variable(name, unit=unit, kind=kind, bounds=bounds)


def _values(draw: st.DrawFn, variables: Variables, steps: int, *, dtype: torch.dtype, missing: bool = False) -> Tensor:
    """Return values (steps, columns) that make sense for each kind."""
    raw = draw(arrays(np.float64, (steps, variables.size), elements=st.floats(-1, 1, width=32)))
    table = torch.from_numpy(raw).to(dtype)
    parts = [_shape(v, table[:, variables.slices[v.name]]) for v in variables]
    out = torch.cat(parts, -1) if parts else table
    if missing:
        out[torch.from_numpy(draw(arrays(np.bool_, out.shape)))] = math.nan
    return out


def _shape(variable: Variable, raw: Tensor) -> Tensor:
    """Return values in [-1, 1] as values of the variable."""
    if isinstance(variable.kind, Rotation):
        return torch.nn.functional.normalize(raw + raw.new_tensor([1.5, 0.0, 0.0, 0.0]), dim=-1)
    if isinstance(variable.kind, Categorical):
        return (0.5 * (raw + 1) * variable.kind.n).floor().clamp(max=variable.kind.n - 1)
    if isinstance(variable.kind, Angle):
        return 10 * raw
    if variable.bounds is not None:
        low, high = variable.bounds
        return low + 0.5 * (raw + 1) * (high - low)
    return 100 * raw
