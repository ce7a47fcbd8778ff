"""A world as a plain function, for planners that know nothing of worlds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.worlds import Noise, Worlds


def frozen(
    model: DynamicsModel | Worlds,
    *,
    world: int = 0,
    generator: torch.Generator | None = None,
    context: Tensor | None = None,
    noise: Noise | None = None,
) -> Callable[..., Tensor]:
    """Return one world as a function of state and action, without gradients.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, of which a world is drawn, or worlds.
    world : int
        Which of the worlds.
    generator : torch.Generator, optional
        Draws the world, where a model needs it.
    context : Tensor, shape (C,), optional
        Environment factors.
    noise : Noise, optional
        Standard normal noise: ``episode`` of shape (n,), ``step`` of shape (n,) or (H, n). Without ``step`` the
        function returns the mean of the next state.

    Returns
    -------
    callable
        ``f(state, action, step=0)`` of shapes (K, S) and (K, A) returns the next state, (K, S). The step, which other
        planners pass if they are told that dynamics depend on it, chooses the noise and is shown to the dynamics. What
        a world remembers beyond the state begins anew in each call.

    Raises
    ------
    SpecError
        For a world that is not there, and when the function is called for a step without noise.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> f = frozen(bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()))
    >>> f(torch.zeros(3, 2), torch.ones(3, 1))
    tensor([[0.0075, 0.1500],
            [0.0075, 0.1500],
            [0.0075, 0.1500]])
    """
    worlds = model if isinstance(model, Worlds) else model.draw(world + 1, generator=generator)
    worlds.check_actionable()
    if not 0 <= world < len(worlds):
        raise SpecError(f"expected one of {len(worlds)} worlds, got {world}")
    one = worlds[world] if len(worlds) > 1 else worlds
    given = Noise() if noise is None else noise
    shown = None if context is None else torch.as_tensor(context).to(one.device, one.dtype)
    beginning = None if given.episode is None else Noise(episode=given.episode.to(one.device, one.dtype)[None, None])
    by_step = None if given.step is None else given.step.to(one.device, one.dtype)
    if by_step is not None and by_step.shape[-1] != one.noise_size:
        raise SpecError(f"expected step noise of {one.noise_size} number(s) a step, got {by_step.shape[-1]}")

    @torch.no_grad()
    def next_state(state: Tensor, action: Tensor, step: int | Tensor = 0) -> Tensor:
        start, act = state.to(one.device, one.dtype), action.to(one.device, one.dtype)
        context = act.new_empty(*act.shape[:-1], 0) if shown is None else shown.expand(*act.shape[:-1], -1)
        law = one.transition(one.start(start, context, beginning), act, context, step=step)
        if by_step is None:
            after = law.mean
        else:
            if by_step.ndim > 1 and int(step) >= len(by_step):
                raise SpecError(f"expected a step below {len(by_step)}, for which there is noise, got {int(step)}")
            pushed = by_step if by_step.ndim == 1 else by_step[int(step)]
            after = one.state(law.push(pushed.expand(1, 1, *start.shape[:-1], -1)))
        return after[0, 0].to(state)

    return next_state
