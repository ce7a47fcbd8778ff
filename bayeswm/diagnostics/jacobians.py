"""How a step of a world changes with the state that it starts from."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator
from bayeswm.base.worlds import Worlds


def markov_worlds(model: DynamicsModel | Worlds, worlds: int, *, seed: int | torch.Generator) -> Worlds:
    """Return worlds whose carry is the state.

    Raises
    ------
    SpecError
        If the state is hidden.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> len(markov_worlds(bwm.KnownDynamics(structure=bwm.structures.Pendulum()), 10, seed=0))
    1
    """
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=make_generator(seed))
    if not drawn.state_is_measured:
        raise SpecError("expected worlds whose carry is the state, got a hidden state: ask the model without sensors")
    return drawn


def step_jacobian(  # noqa: PLR0917 (hot path)
    worlds: Worlds, state: Tensor, action: Tensor, context: Tensor | None, step: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the mean of a step and its derivative by the state.

    Parameters
    ----------
    worlds : Worlds
        Whose carry is the state.
    state : Tensor, shape (W, P, *batch, S)
        Where the step starts.
    action : Tensor, shape (*batch, A)
        What is done.
    context : Tensor, shape (*batch, C), optional
        Context.
    step : int
        Index of the step.

    Returns
    -------
    tuple of Tensor, shapes (W, P, *batch, S) and (W, P, *batch, S, S)
        Row i of the derivative belongs to column i of the next state.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum()).draw(1)
    >>> zero = torch.zeros(1, 1, 2, dtype=torch.float64)
    >>> step_jacobian(worlds, zero, torch.zeros(1), None)[1].shape
    torch.Size([1, 1, 2, 2])
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = state.detach().clone().requires_grad_()
        mean = worlds.transition(x, action, context, step=step).mean
        mean = mean + 0 * x  # in the graph even where a step ignores the state
        # rows of the batch do not meet in a step: one sum gives the derivatives of all
        rows = [
            torch.autograd.grad(mean[..., i].sum(), x, retain_graph=i + 1 < mean.shape[-1])[0]
            for i in range(mean.shape[-1])
        ]
    return mean.detach(), torch.stack(rows, -2)
