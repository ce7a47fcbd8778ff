"""What worlds learned from a log would be if a hidden confounder of given strength had been at work in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.laws import Law
from bayeswm.base.worlds import Belief, MarkovWorlds, Noise, Worlds
from bayeswm.causal.confounding.strategies import Adjusted
from bayeswm.causal.confounding.worlds import CausalWorlds
from bayeswm.causal.sensitivity.behaviour import LinearBehaviour
from bayeswm.causal.sensitivity.moved_law import moved


class CorrectedWorlds(MarkovWorlds):
    """Worlds learned from a log, corrected for a confounder; made by :func:`assume_confounder`.

    Attributes
    ----------
    inner : Worlds
        The worlds as they were learned.
    """

    def __init__(
        self, inner: MarkovWorlds, behaviour: LinearBehaviour, *, action: int, outcome: int, gain: Tensor
    ) -> None:
        self.inner, self.behaviour, self.action, self.outcome = inner, behaviour, action, outcome
        self._name = "confounder_gain"
        while self._name in inner.parameters:  # worlds that were corrected before
            self._name += "_"
        self.schema, self.parameters = inner.schema, {**inner.parameters, self._name: gain}
        self.log_weight, self.exhaustive = inner.log_weight, inner.exhaustive
        self.noise_size, self.episode_noise_size = inner.noise_size, inner.episode_noise_size

    @property
    def gain(self) -> Tensor:
        """Standard deviations of the outcome's noise that one of the action takes with it in the log, shape (worlds,).

        It does not cause them; its square is what the noise's variance lacks, as a share. It is among the parameters,
        as ``confounder_gain``.
        """
        return self.parameters[self._name]

    @property
    @override
    def dtype(self) -> torch.dtype:
        return self.inner.dtype

    @override
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        return self.inner.start(belief, context, noise)

    @override
    def transition(
        self, carry: Tensor, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0
    ) -> Law:
        law = self.inner.transition(carry, action, context, step=step)
        lead = law.mean.shape[:-1]
        state, done = carry.expand(*lead, -1), action.to(carry).expand(*lead, -1)
        off = self.behaviour.standardised(done, state, context, column=self.action)
        gain = self.gain.to(off).view(-1, *(1,) * (off.ndim - 1))
        return moved(law, -gain * off, gain.square(), column=self.outcome)

    @override
    def to(self, target: torch.device | str | torch.dtype) -> Self:
        return self._around(self.inner.to(target), self.gain.to(target))

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        own = {k: parameters[k] for k in self.inner.parameters}
        inner = self.inner._with(parameters=own, log_weight=log_weight, exhaustive=exhaustive)
        return self._around(inner, parameters[self._name])

    @override
    def _replaced(self, parameters: Mapping[str, Tensor]) -> Self:
        own = {k: parameters[k] for k in self.inner.parameters}
        return self._around(self.inner._replaced(own), parameters[self._name])

    def _around(self, inner: MarkovWorlds, gain: Tensor) -> Self:
        return type(self)(inner, self.behaviour, action=self.action, outcome=self.outcome, gain=gain)


def assume_confounder(
    worlds: Worlds,
    behaviour: LinearBehaviour,
    *,
    action_r2: float | Tensor,
    outcome_r2: float | Tensor,
    sign: int = 1,
    action: str | None = None,
    outcome: str | None = None,
) -> CorrectedWorlds:
    r"""Return worlds as they would be if a hidden confounder had driven the log's action and the next state.

    The confounder u ~ N(0, 1) is new at each step. In the log it explains the share ``action_r2`` of what the state
    leaves of the action, and the share ``outcome_r2`` of what the learned law leaves of the next state:

    .. math:: u \mid s, a \sim N(\rho z, 1 - \rho^2), \quad z = (a - E[a \mid s]) / sd(a \mid s), \quad
              \rho^2 = R_a^2, \quad \gamma = \sigma R_s / \sqrt{1 - \rho^2}

    where :math:`\gamma` is the coefficient of u in the next state, and :math:`\sigma` the noise's standard deviation
    in the learned law, whose mean therefore contains :math:`\gamma \rho z`. When the action is set, u keeps its own law
    whatever the action is. So the mean loses :math:`R_s R_a / \sqrt{1 - R_a^2} \, \sigma z`, and the variance is
    :math:`\sigma^2 (1 + R_s^2 R_a^2 / (1 - R_a^2))`. Exact for a law that is linear and Gaussian; for
    other noise the mean and the variance are corrected, and its shape is kept. The worlds that come back answer what
    happens if actions are set, not what the log would show.

    Parameters
    ----------
    worlds : Worlds
        Learned from the log, with a measured state.
    behaviour : LinearBehaviour
        How the log's actions were chosen; :func:`fit_behaviour` finds it.
    action_r2 : float or Tensor of shape (worlds,)
        Partial R^2 of the confounder with the action given the state (and the other actions), in [0, 1).
    outcome_r2 : float or Tensor of shape (worlds,)
        Partial R^2 of the confounder with the outcome given state and action, in [0, 1].
    sign : {1, -1}
        Whether it raises both (the learned effect of the action is too high), or raises one and lowers the other.
    action, outcome : str, optional
        The action and the state's column that it drives; not needed where there is only one.

    Returns
    -------
    CorrectedWorlds

    Raises
    ------
    SpecError, UnknownVariableError
        For a hidden state, unknown names, a choice that is left open, or strengths out of range.

    References
    ----------
    Cinelli and Hazlett (2020), Making sense of sensitivity: extending omitted variable bias, for one linear
    regression, of which this is the case with one step.

    Examples
    --------
    The log of s' = 0.9 s + 0.5 a + u + w with a = -0.3 s + u + v teaches s' = 1.05 s + 1.0 a with the variance 0.51:

    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    >>> learned = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=1.05, B=1.0), noise=0.51**0.5)
    >>> chosen = bwm.causal.LinearBehaviour(schema, torch.tensor([[0.0], [-0.3]]).double(), 2 * torch.eye(1).double())
    >>> right = assume_confounder(learned.draw(1), chosen, action_r2=0.5, outcome_r2=0.5 / 0.51)
    >>> law = right.transition(right.start(torch.ones(1)), torch.ones(1).double())
    >>> round(law.mean.item(), 6), round(law.variance.item(), 6)
    (1.4, 1.01)
    """
    if not isinstance(worlds, MarkovWorlds):
        raise SpecError(f"expected worlds whose state is measured, without interventions, got {type(worlds).__name__}")
    refuse_corrected(worlds)
    worlds.schema.check_same(behaviour.schema, who="the worlds' system")
    if sign not in (1, -1):
        raise SpecError(f"expected sign=1 or sign=-1, got {sign!r}")
    with_action, with_outcome = (
        torch.as_tensor(v, dtype=torch.float64, device=worlds.device) for v in (action_r2, outcome_r2)
    )
    if not bool(((with_action >= 0) & (with_action < 1)).all()):
        raise SpecError(f"expected action_r2 in [0, 1), got {action_r2}")
    if not bool(((with_outcome >= 0) & (with_outcome <= 1)).all()):
        raise SpecError(f"expected outcome_r2 in [0, 1], got {outcome_r2}")
    gain = sign * (with_outcome * with_action / (1 - with_action)).sqrt()
    return CorrectedWorlds(
        worlds,
        behaviour,
        action=only("action", worlds.schema.action.columns, action),
        outcome=only("outcome", worlds.schema.state.columns, outcome),
        gain=gain.expand(len(worlds)).to(worlds.dtype),
    )


def refuse_corrected(worlds: Worlds) -> None:
    """Refuse worlds that were freed of hidden causes already.

    Raises
    ------
    SpecError
        With what to ask instead.
    """
    if not isinstance(worlds, CausalWorlds) or worlds.wiring.logged:
        return
    strategy = worlds.recipe.strategy
    if isinstance(strategy, Adjusted):
        cure = (
            f"ask its .outcome, of which ({', '.join(strategy.by)}) is context, with these columns in the log and as "
            "context="
        )
    else:
        cure = "what they rest on is the graph, such as an instrument that acts on nothing else; change that and refit"
    raise SpecError(
        f"expected worlds that take the log's actions as if nothing hidden had chosen them, got some that correct for "
        f"hidden causes by {strategy}; {cure}"
    )


def only(what: str, columns: tuple[str, ...], name: str | None) -> int:
    """Return the index of a named column, or of the only one.

    Raises
    ------
    SpecError, UnknownVariableError
        If there is a choice and no name, or the name is unknown.
    """
    if name is None:
        if len(columns) != 1:
            raise SpecError(f"expected {what}=, one of ({', '.join(columns)}), got none")
        return 0
    if name not in columns:
        raise UnknownVariableError.of(name, columns)
    return columns.index(name)
