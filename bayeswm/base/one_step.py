"""Single transitions under worlds: how likely what came is in each, and what each would have predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law
from bayeswm.base.memory import available_memory
from bayeswm.base.random import standard_normal
from bayeswm.base.trajectories import Transitions
from bayeswm.base.worlds import Worlds

# numbers of one block of worlds times transitions times columns, so that what is computed on the way stays small
_BLOCK = 2**22


def transition_law(worlds: Worlds, data: Transitions) -> Law:
    """Return the law of what followed each transition's state and action, in each world."""
    state, action, context = (v.to(worlds.dtype) for v in data[:3])
    return worlds.transition(worlds.start(state, context), action, context, step=data.step)


def log_prob_by_column(law: Law, data: Transitions, columns: Sequence[str]) -> dict[str, Tensor]:
    """Return the log density of what came in each transition, shape (worlds, n) by name.

    Returns
    -------
    dict of str to Tensor
        One for each column of the state where these are independent given the parameters, else ``state`` for all.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.01).draw(1)
    >>> data = bwm.Trajectories(worlds.schema, state=torch.zeros(1, 6, 2), action=torch.zeros(1, 5, 1)).transitions()
    >>> found = log_prob_by_column(transition_law(worlds, data), data, worlds.schema.state.columns)
    >>> {name: v.shape for name, v in found.items()}
    {'angle': torch.Size([1, 5]), 'velocity': torch.Size([1, 5])}
    """
    target = data.next_state.to(law.mean.dtype)
    each, joint = law.log_prob(target, marginal=True)[:, 0], law.log_prob(target)[:, 0]
    if not torch.allclose(each.sum(-1), joint, equal_nan=True):
        return {"state": joint}
    return {name: each[..., i] for i, name in enumerate(columns)}


def predict_by_column(law: Law, columns: Sequence[str], generator: torch.Generator) -> dict[str, Tensor]:
    """Return one draw of what could have followed each transition in each world, shape (worlds, n) by column."""
    like = law.mean
    noise = standard_normal((*like.shape[:-1], law.noise_size), generator, dtype=like.dtype, device=like.device)
    after = law.push(noise)[:, 0]
    return {name: after[..., i] for i, name in enumerate(columns)}


def in_blocks(answer: Callable[[slice], dict[str, Tensor]], worlds: int, size: int) -> dict[str, Tensor]:
    """Join what is answered for blocks of worlds, of which each gives about ``size`` numbers.

    Raises
    ------
    SpecError
        If the answer cannot fit into memory.

    Examples
    --------
    >>> in_blocks(lambda part: {"x": torch.arange(10)[part]}, 10, 2**21)["x"].shape
    torch.Size([10])
    """
    # the blocks and, while they are joined, the whole; numbers in double precision
    needed, free = 16 * worlds * size, available_memory()
    if free is not None and needed > free:
        raise SpecError(
            f"expected an answer that fits into memory, got {needed / 2**30:.1f} GiB for {worlds} draws of {size} "
            f"values each with {free / 2**30:.1f} GiB free; keep fewer with draws="
        )
    rows = max(1, _BLOCK // max(1, size))
    parts = [answer(slice(first, first + rows)) for first in range(0, worlds, rows)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
