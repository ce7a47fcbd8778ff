"""What is believed of a system while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, MarkovWorlds, Worlds


class Live:
    """Follows running systems by their measurements; its belief is what planners and rollouts start from.

    Where the state is measured, the belief is the last measurement. Otherwise each world filters its own belief one
    step at a time; worlds whose carry knows more than the state (see ``Worlds.state_law``) are given the history.

    Parameters
    ----------
    worlds : Worlds
        What the system may be.
    first : Tensor, shape (rows, M)
        First measurement of each system; NaN for what was not measured.
    schema : Schema, optional
        Of the measurements; the worlds' by default.
    context : Tensor, shape (rows, C), optional
        Environment factors.
    reweight : bool
        Weigh the worlds by how well they predicted what came. For one row, since worlds have one weight for all.
        Few drawn worlds soon become one, which is then taken for the truth.

    Raises
    ------
    SpecError, DataError
        If measurements and worlds do not fit together.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.01, sensor_noise=0.1)
    >>> live = Live(model.draw(1), torch.tensor([[0.3, 0.0]]))
    >>> before = live.belief.variance
    >>> live.update(torch.zeros(1, 1), torch.tensor([[0.31, -0.1]]))
    >>> bool((live.belief.variance < before).all())
    True
    """

    def __init__(
        self,
        worlds: Worlds,
        first: Tensor,
        *,
        schema: Schema | None = None,
        context: Tensor | None = None,
        reweight: bool = False,
    ) -> None:
        self.worlds, self.context = worlds, context
        self._schema = _plain(worlds.schema if schema is None else schema)
        worlds.schema.check_same(self._schema, who="the model")
        if first.ndim != 2 or first.shape[-1] != self._schema.measured.size:
            expected = f"(rows, {self._schema.measured.size}) for {self._schema.measured.columns}"
            raise DataError(f"expected measurements of shape {expected}, got {tuple(first.shape)}")
        if reweight and len(first) > 1:
            raise SpecError(f"expected one row to weigh worlds by, got {len(first)}: weights are the same for all rows")
        self._measured, self._actions, self._last = [first], list[Tensor](), first
        self._reweight, self._prior, self._evidence = reweight, worlds.log_weight, torch.zeros_like(worlds.log_weight)
        self._by_state = isinstance(worlds, MarkovWorlds)
        self._carry: Any = self._start()

    @property
    def belief(self) -> Belief:
        """Where the systems are: states (rows, S), a law of them in each world, or the history."""
        if self._by_state:
            return self._columns(self._measured[-1])
        law = self.worlds.state_law(self._carry)
        return self._history() if law is None else law

    def meet(self, worlds: Worlds) -> None:
        """Go on in other worlds of the same system, with what they make of all that was measured."""
        self.worlds = worlds
        self._prior, self._evidence = worlds.log_weight, torch.zeros_like(worlds.log_weight)
        self._carry = self._start()

    def update(self, action: Tensor, measured: Tensor) -> None:
        """Take in what was done, shape (rows, A), and what was measured after it, (rows, M)."""
        measured = self._lifted(measured)
        if self._reweight or not self._by_state:
            values, given = self._columns(measured), action.to(self.worlds.device, self.worlds.dtype)
            self._carry, log_prob = self.worlds.filter(
                self._carry, given, self._given(), values, step=len(self._actions)
            )
            if self._reweight:
                self._evidence = self._evidence + log_prob[:, 0, 0].to(self._evidence)
                self.worlds = self.worlds.reweight(self._prior + self._evidence)
        self._measured.append(measured)
        self._actions.append(action)

    def _start(self) -> Any:
        if self._by_state:
            return self.worlds.start(self._columns(self._measured[-1]))
        return self.worlds.start(self._history(), self._given())

    def _lifted(self, measured: Tensor) -> Tensor:
        """Return a measurement whose angles go on from those before, as in recorded trajectories."""
        pair = self._schema.measured.unwrap(torch.stack((self._last, measured.to(self._last)), -2))
        self._last = torch.where(pair[..., 1, :].isnan(), self._last, pair[..., 1, :])
        return pair[..., 1, :]

    def _columns(self, measured: Tensor) -> Tensor:
        """Return the measured columns that the worlds have, in their order and number format."""
        have, want = self._schema.measured.columns, self.worlds.schema.measured.columns
        missing = [name for name in want if name not in have]
        if missing:
            raise SpecError(f"expected measurements of ({', '.join(want)}), as the model has, got ({', '.join(have)})")
        index = [have.index(name) for name in want]
        return measured[..., index].to(self.worlds.device, self.worlds.dtype)

    def _given(self) -> Tensor | None:
        return None if self.context is None else self.context.to(self.worlds.device, self.worlds.dtype)

    def _history(self) -> Trajectories:
        """Return what was recorded so far; before the first action a history without a transition."""
        states, actions = self._measured, self._actions
        nothing = not actions
        if nothing:
            states, actions = [*states, states[-1]], [states[0].new_zeros(len(states[0]), self._schema.action.size)]
        group = "state" if self._schema.observation is None else "observation"
        arrays = {group: torch.stack(states, 1), "action": torch.stack([a.to(states[0]) for a in actions], 1)}
        found = Trajectories(self._schema, **arrays, context=self.context, allow_missing=True)
        return found.histories(1) if nothing else found


def _plain(schema: Schema) -> Schema:
    """Return a schema without rewards and bounds: noise at a bound is no news worth a warning a step."""

    def free(variables: Sequence[Variable]) -> list[Variable]:
        return [Variable(v.name, unit=v.unit, kind=v.kind) for v in variables]

    return Schema(
        state=free(schema.state),
        action=free(schema.action),
        context=free(schema.context),
        observation=None if schema.observation is None else free(schema.observation),
        time_step=schema.time_step,
    )
