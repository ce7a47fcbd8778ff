"""Interventions: which variable is set to what, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayeswm.base.errors import SpecError
from bayeswm.causal.mechanism import Mechanism

Steps = int | slice | None
Event = Callable[[Tensor, int | Tensor], Tensor]


@runtime_checkable
class Change(Protocol):
    """A soft intervention that maps the value that the system gave, without looking at anything else."""

    additive: ClassVar[bool]

    def apply(self, value: Tensor) -> Tensor:
        """Return the value instead of the one that the system gave."""
        ...


@dataclass(frozen=True)
class Shift:
    """Adds a constant; see :func:`shift`."""

    additive: ClassVar[bool] = True
    by: float

    def apply(self, value: Tensor) -> Tensor:
        """Return the shifted value."""
        return value + self.by


@dataclass(frozen=True)
class Clamp:
    """Keeps a value between bounds; see :func:`clamp`."""

    additive: ClassVar[bool] = False
    low: float | None
    high: float | None

    def apply(self, value: Tensor) -> Tensor:
        """Return the value within the bounds."""
        return value.clamp(self.low, self.high)


def shift(by: float) -> Shift:
    """Return a change for :func:`do`: whatever the system gave, plus a constant.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> bwm.causal.do(torque=shift(0.5))
    do(torque=Shift(by=0.5))
    """
    return Shift(float(by))


def clamp(low: float | None = None, high: float | None = None) -> Clamp:
    """Return a change for :func:`do`: whatever the system gave, kept between two bounds, of which one may be absent.

    Raises
    ------
    SpecError
        Without a bound, or if they cross.

    Examples
    --------
    >>> clamp(low=0.0)
    Clamp(low=0.0, high=None)
    """
    if (low is None and high is None) or (low is not None and high is not None and not low <= high):
        raise SpecError(f"expected low=, high= or both with low <= high, got {low} and {high}")
    return Clamp(low, high)


@dataclass(frozen=True, eq=False)
class Assignment:
    """One variable, what it is set to, and in which steps.

    Attributes
    ----------
    name : str
        A column of the state, the action or the context, a parameter, or ``noise.`` and a column of the state.
    value : Tensor, callable, Change, Distribution or Mechanism
        A tensor of shape () is one value for all steps; (..., K) one for each of the steps, where further axes
        broadcast to (worlds, particles, *batch).
    steps : int, slice or None
        None is every step, or as many as there are values.
    when : callable, optional
        The event of (state, step) from which on it acts.
    """

    name: str
    value: Any
    steps: Steps = None
    when: Event | None = None

    @property
    def begin(self) -> int:
        """The first step."""
        return self.steps if isinstance(self.steps, int) else (self.steps.start or 0) if self.steps else 0

    @property
    def hard(self) -> bool:
        """Whether the value is known before the system is asked."""
        return isinstance(self.value, Tensor)

    @property
    def constant(self) -> bool:
        """Whether the value is one number for all steps."""
        return isinstance(self.value, Tensor) and self.value.ndim == 0

    @property
    def stochastic(self) -> bool:
        """Whether the value is a law to draw from."""
        return isinstance(self.value, Distribution)

    def active(self, step: int | Tensor) -> bool:
        """Whether it acts in a step; of several steps at once, in all or in none of them.

        Raises
        ------
        SpecError
            If it acts in some of the steps only.
        """
        if self.steps is None:
            return True
        if isinstance(step, int):
            return self._at(step)
        on = [self._at(int(t)) for t in torch.as_tensor(step).flatten().tolist()]
        if any(on) and not all(on):
            raise SpecError(f"expected one step at a time, since {self} acts in some only, got {len(on)} steps at once")
        return bool(on) and on[0]

    def values(self, step: int | Tensor) -> Tensor:
        """Return what a hard intervention sets in a step, broadcastable to (worlds, particles, *batch)."""
        if self.value.ndim == 0:
            return self.value
        stride = (self.steps.step or 1) if isinstance(self.steps, slice) else 1
        index = (step - self.begin) // stride
        if bool(torch.as_tensor(index >= self.value.shape[-1]).any()):
            raise SpecError(
                f"expected a value of {self.name!r} for step {int(torch.as_tensor(step).max())}, got {self}"
            )
        return self.value[..., index]

    def drawn(self, noise: Tensor) -> Tensor:
        """Return a draw of a stochastic intervention from standard normal noise."""
        law = self.value
        if isinstance(law, Normal):
            return law.loc.to(noise) + law.scale.to(noise) * noise
        return law.icdf(torch.special.ndtr(noise)).to(noise)

    def check_horizon(self, last: int) -> None:
        """Refuse steps beyond the last one.

        Raises
        ------
        SpecError
            Naming the step.
        """
        if self.steps is None and not (self.hard and self.value.ndim):
            return
        reach = self.begin
        if isinstance(self.steps, slice) and self.steps.stop is not None:
            reach = max(range(self.steps.stop)[self.steps], default=reach)
        if self.hard and self.value.ndim:
            stride = (self.steps.step or 1) if isinstance(self.steps, slice) else 1
            reach = max(reach, self.begin + stride * (self.value.shape[-1] - 1))
        if reach > last:
            raise SpecError(f"expected steps of {self.name!r} within 0..{last}, the horizon, got step {reach}")

    def _at(self, step: int) -> bool:
        if isinstance(self.steps, int):
            return step == self.steps
        if self.steps is None:
            return True
        start, stop, stride = self.begin, self.steps.stop, self.steps.step or 1
        return step >= start and (stop is None or step < stop) and (step - start) % stride == 0

    def __repr__(self) -> str:
        value = self.value
        if isinstance(value, Tensor):
            value = value.item() if value.ndim == 0 else f"<{value.shape[-1]} values>"
        elif not isinstance(value, Change | Distribution | Mechanism):
            value = getattr(value, "__name__", type(value).__name__)
        steps = "" if self.steps is None else f"@{self.steps}"
        when = "" if self.when is None else f" when {getattr(self.when, '__name__', type(self.when).__name__)}"
        return f"{self.name}{steps}={value}{when}"


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
        first happens there, and the intervention acts from that step on. For actions and context.
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
    return Intervention(tuple(Assignment(name, _value(name, v, steps), steps, when) for name, v in given.items()))


def _check_steps(steps: object) -> None:
    fits = steps is None or (isinstance(steps, int) and not isinstance(steps, bool) and steps >= 0)
    if isinstance(steps, slice):
        bounds = [v for v in (steps.start, steps.stop, steps.step) if v is not None]
        whole = all(isinstance(v, int) and v >= 0 for v in bounds) and steps.step != 0
        fits = whole and (steps.stop is None or steps.stop > (steps.start or 0))
    if not fits:
        raise SpecError(f"expected steps= as an index >= 0 or a slice of at least one such, got {steps!r}")


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
    if isinstance(value, Change | Mechanism) or (isinstance(value, Callable) and not isinstance(value, Tensor)):
        return value
    try:
        array = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        raise SpecError(
            f"{name}: expected a number, a sequence, a callable of (state, step), a distribution or a change such as "
            f"shift(0.5), got {value!r}"
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
