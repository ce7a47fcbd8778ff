"""Interventions: which variable is set to what, and when."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError
from bayeswm.causal.interventions.assignment import Assignment, Event, Steps
from bayeswm.causal.interventions.changes import Change
from bayeswm.causal.structural.mechanism import Mechanism


@dataclass(frozen=True, eq=False)
class Intervention:
    """What :func:`do` returns: assignments that hold together."""

    assignments: tuple[Assignment, ...]

    def __repr__(self) -> str:
        return f"do({', '.join(map(repr, self.assignments))})"


def do(
    values: Mapping[str, Any] | None = None, /, *, steps: Steps = None, when: Event | None = None, **named: Any
) -> Intervention:
    """Say what is done to a system: variables are set, whatever would have set them otherwise.

    Parameters
    ----------
    values : mapping, optional
        What each variable is set to. Names are columns of the state, the action or the context, parameters of the
        worlds, or ``"noise.speed"`` for the standard normal noise of a column of the state.
    steps : int, slice or None
        When. A state set at step k is x[k], k = 0..H, before a[k] is chosen, and the next step sees it; an action set
        at step k is a[k], after the policy proposed it; noise at step k leads to x[k + 1]. Every step by default.
    when : callable, optional
        An event, ``when(state, step)`` of states (..., S) to truth values (...): each trajectory is left alone until it
        first happens there, and the intervention acts from that step on: on action, context, noise and parameters of
        the step from the state where it happened, and on the state that this step leads to.
    **named : object
        The same by keyword, for names that are identifiers.

    Returns
    -------
    Intervention
        For :func:`intervene`, :func:`effect` and :func:`counterfactual`.

    Raises
    ------
    SpecError
        If there is nothing to do, a name appears twice, a value or ``steps`` makes no sense, or the number of values
        is not that of the steps.

    Notes
    -----
    A value is one of these.

    * A number.
    * A sequence with one value for each of the steps; a tensor of shape (*batch, K) has one for each row.
    * A callable of (state, step), elementwise: a policy. It sees states of shape (..., S) and returns (...). Set on the
      state, it sees x[k] as the system gave it; inside a slice (see :class:`StructuralModel`) what of it is settled
      so far, and NaN elsewhere.
    * :func:`shift` or :func:`clamp`: what the system gave, changed.
    * A distribution: one draw a step, in each particle. Set on a variable of a slice it is a mechanism without parents.
    * A :class:`Mechanism`, for a variable of a :class:`StructuralModel`: another cause, with the noise it had.

    Noise takes numbers, sequences, callables, distributions and :func:`shift`. A callable sees the state before the
    step. A distribution stands in place of the standard normal one; in a counterfactual it is drawn anew, since it
    replaces the noise that was inferred. Parameters take a number, one for each step, or a change: a parameter belongs
    to a world, and a law of it is a prior, or values set by ``worlds.replace``.

    Examples
    --------
    >>> do(torque=1.0)
    do(torque=1.0)
    >>> do({"torque": [0.0, 1.0]}, steps=slice(5, 7))
    do(torque@slice(5, 7, None)=<2 values>)

    The brake of each trajectory comes on once it is faster than 2 m/s:

    >>> stop = do(force=-1.0, when=lambda state, step: state[..., 1] > 2.0)
    """
    given: dict[str, Any] = dict(values or {})
    for name, value in named.items():
        if name in given:
            raise SpecError(f"expected each variable once, got {name!r} twice")
        given[name] = value
    if not given:
        raise SpecError("expected a variable and its value, such as do(torque=1.0), got nothing")
    _check_steps(steps)
    if when is not None and not callable(when):
        raise SpecError(f"expected when= as a callable of (state, step), got {type(when).__name__}")
    if when is not None:
        _check_signature("when=", when)
    return Intervention(tuple(Assignment(name, _value(name, v, steps), steps, when) for name, v in given.items()))


def _check_steps(steps: object) -> None:
    fits = steps is None or (isinstance(steps, int) and not isinstance(steps, bool) and steps >= 0)
    if isinstance(steps, slice):
        bounds = [v for v in (steps.start, steps.stop, steps.step) if v is not None]
        whole = all(isinstance(v, int) and v >= 0 for v in bounds) and steps.step != 0
        fits = whole and (steps.stop is None or steps.stop > (steps.start or 0))
    if not fits:
        raise SpecError(f"expected steps= as an index >= 0 or a slice of at least one such, got {steps!r}")


def _check_signature(name: str, fn: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(fn)
    except ValueError:  # some builtins have none
        return
    try:
        signature.bind(None, 0)
    except TypeError:
        raise SpecError(f"{name}: expected a callable of (state, step), got one of {signature}") from None


def _value(name: str, value: Any, steps: Steps) -> Any:
    if isinstance(value, Distribution):
        if value.batch_shape or value.event_shape:
            raise SpecError(f"{name}: expected a law of one number, got one of shape {tuple(value.batch_shape)}")
        try:
            value.icdf(torch.tensor(0.5))
        except NotImplementedError:
            law = type(value).__name__
            raise SpecError(f"{name}: expected a law with a quantile function (icdf), got {law}") from None
        return value
    if isinstance(value, Change | Mechanism):
        return value
    if callable(value) and not isinstance(value, Tensor):
        _check_signature(name, value)
        return value
    try:
        if isinstance(value, str):  # NumPy would read its number
            raise TypeError
        array = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        raise SpecError(
            f"{name}: expected a number, a sequence, a callable of (state, step), a law of torch.distributions or a "
            f"change such as shift(0.5), got {value!r}"
        ) from None
    array = array.double() if not array.is_floating_point() else array
    if array.numel() == 0 or not bool(array.isfinite().all()):
        raise SpecError(f"{name}: expected finite values, got {value!r}")
    count = 1 if isinstance(steps, int) else None
    if isinstance(steps, slice) and steps.stop is not None:
        count = len(range(steps.stop)[steps])
    if array.ndim and count is not None and array.shape[-1] != count:
        raise SpecError(f"{name}: expected {count} value(s), one for each step of {steps}, got {array.shape[-1]}")
    return array
