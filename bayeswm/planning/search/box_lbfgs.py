"""Quasi-Newton steps within a box, for many problems at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_DECREASE = 1e-4
_CURVATURE = 1e-10


class BoxLBFGS:
    """Minimises many functions side by side, each with its own memory of curvature and its own line search.

    Limited-memory BFGS (Nocedal & Wright 2006, section 7.2) on the variables that are free, those at an end of the
    box and pushed outwards held there (two-metric projection, Bertsekas 1982), with backtracking along the projected
    path. The caller evaluates :attr:`trial` and hands value and gradient to :meth:`tell`; one evaluation serves all
    rows, whether it is a new step or a shorter one. Rows do not influence each other. A row that begins where its
    function is not finite moves towards the middle of the box until it is.

    Parameters
    ----------
    start : Tensor, shape (rows, n)
        Where to begin, in the box [-1, 1]^n.
    project : callable
        Returns the nearest possible points (rows, n); the identity within the box by default.
    memory : int
        Pairs of changes that are remembered.
    first_step : float
        Largest change of a variable in the first step.
    tolerance : float
        A row is finished when the next step promises to change its value by less than this share of it.

    Examples
    --------
    >>> target = torch.tensor([[0.5, 2.0], [-0.25, 0.0]], dtype=torch.float64)
    >>> search = BoxLBFGS(torch.zeros_like(target))
    >>> for _ in range(10):
    ...     away = search.trial - target
    ...     search.tell((away**2).sum(-1), 2 * away)
    >>> search.point
    tensor([[ 0.5000,  1.0000],
            [-0.2500,  0.0000]], dtype=torch.float64)
    """

    def __init__(
        self,
        start: Tensor,
        project: Callable[[Tensor], Tensor] = lambda z: z.clamp(-1.0, 1.0),
        *,
        memory: int = 8,
        first_step: float = 0.25,
        tolerance: float = 1e-9,
    ) -> None:
        self.project, self.first_step, self.tolerance = project, first_step, tolerance
        self.trial = project(start)
        self.point = self.trial
        rows = start.new_zeros(len(start))
        self.value = rows.new_full(rows.shape, float("inf"))
        self.gradient = torch.zeros_like(start)
        self.direction = torch.zeros_like(start)
        self.length = torch.ones_like(rows)
        self.refused = torch.zeros_like(rows)
        self.finished = torch.zeros_like(rows, dtype=torch.bool)
        self._moves = start.new_zeros(memory, *start.shape)
        self._turns = torch.zeros_like(self._moves)

    def tell(self, value: Tensor, gradient: Tensor, *, comparable: Tensor | None = None) -> None:
        """Take note of what was found at :attr:`trial`, and settle the next one.

        Parameters
        ----------
        value : Tensor, shape (rows,)
            Values; anything that is not finite is worse than all else.
        gradient : Tensor, shape (rows, n)
            Gradients.
        comparable : Tensor of bool, shape (rows,), optional
            Whether the function is still the one of the last call; where it is not, what is known of its curvature is
            forgotten and the point counts as a new start.
        """
        usable = value.isfinite() & gradient.isfinite().all(-1)
        gradient = torch.where(usable[:, None], gradient, 0.0)
        new = ~self.value.isfinite() if comparable is None else ~self.value.isfinite() | ~comparable
        move = self.trial - self.point
        promised = (self.gradient * move).sum(-1)
        rounding = 4 * torch.finfo(value.dtype).eps * self.value.abs()
        accepted = usable & (new | (value <= self.value + _DECREASE * promised + rounding))
        self._remember(move, gradient - self.gradient, accepted & ~new)
        if comparable is not None:
            self._forget(~comparable)
            self.finished = self.finished & comparable
        # a new start keeps the point even where it is no better
        self.value = torch.where(accepted, value, self.value)
        self.point = torch.where(accepted[:, None], self.trial, self.point)
        self.gradient = torch.where(accepted[:, None], gradient, self.gradient)
        self.refused = torch.where(accepted, 0.0, self.refused + 1)
        self._shorten(value, promised, ~accepted)
        # a direction that fails again and again rests on wrong curvature
        stuck = self.refused == 8
        self._forget(stuck)
        self._aim(accepted | stuck)
        moved = self.point + self.length[:, None] * self.direction
        moved = torch.where(self.value.isfinite()[:, None], moved, 0.5 * self.trial)
        self.trial = torch.where(self.finished[:, None], self.point, self.project(moved))
        expected = (self.gradient * (self.trial - self.point)).sum(-1).abs()
        still = expected <= self.tolerance * self.value.abs().clamp(min=torch.finfo(value.dtype).tiny)
        self.finished = self.finished | (self.value.isfinite() & (still | (self.refused >= 16)))

    def _remember(self, move: Tensor, turn: Tensor, where: Tensor) -> None:
        size = move.norm(dim=-1) * turn.norm(dim=-1)
        where = (where & ((move * turn).sum(-1) > _CURVATURE * size))[:, None]
        self._moves = torch.where(where, torch.cat((self._moves[1:], move[None])), self._moves)
        self._turns = torch.where(where, torch.cat((self._turns[1:], turn[None])), self._turns)

    def _forget(self, where: Tensor) -> None:
        self._moves = torch.where(where[:, None], 0.0, self._moves)
        self._turns = torch.where(where[:, None], 0.0, self._turns)

    def _shorten(self, value: Tensor, promised: Tensor, where: Tensor) -> None:
        """Make refused steps shorter: to the minimum of the parabola through what is known, within limits."""
        excess = value - self.value - promised
        best = torch.where(excess > 0, -0.5 * promised / excess, 0.5).nan_to_num(0.25)
        self.length = torch.where(where, self.length * best.clamp(0.1, 0.5), self.length)

    def _aim(self, where: Tensor) -> None:
        """Point the rows that need it down hill, with a full step."""
        g, z = self.gradient, self.point
        edge = 1.0 - 1e-9
        free = ~((z <= -edge) & (g > 0)) & ~((z >= edge) & (g < 0))
        g = torch.where(free, g, 0.0)
        moves, turns = torch.where(free, self._moves, 0.0), torch.where(free, self._turns, 0.0)
        product = (moves * turns).sum(-1, keepdim=True)
        # a pair counts where the function still curves upwards along what is free of it
        known = product > _CURVATURE * moves.norm(dim=-1, keepdim=True) * turns.norm(dim=-1, keepdim=True)
        moves, turns = (torch.where(known, v, 0.0).movedim(0, 1) for v in (moves, turns))
        steepest = self.first_step / g.abs().amax(-1).clamp(min=torch.finfo(g.dtype).tiny)
        down = _inverse_curvature(g, moves, turns, steepest=steepest)
        down = torch.where(free, down, 0.0)
        slope = (down * g).sum(-1)
        sound = down.isfinite().all(-1) & (slope > 1e-8 * down.norm(dim=-1) * g.norm(dim=-1))
        down = torch.where(sound[:, None], down, steepest[:, None] * g)
        self.direction = torch.where(where[:, None], -down, self.direction)
        self.length = torch.where(where, 1.0, self.length)


def _inverse_curvature(gradient: Tensor, moves: Tensor, turns: Tensor, *, steepest: Tensor) -> Tensor:
    """Return the quasi-Newton estimate of the inverse Hessian times a gradient, (rows, n).

    In the compact form (Byrd, Nocedal & Schnabel 1994, equation 3.1): a few products for all rows. ``moves`` and
    ``turns`` have shape (rows, memory, n), oldest first, 0 where a pair does not count; ``steepest`` (rows,) is the
    scale without any.
    """
    inner = moves @ turns.mT
    curved = inner.diagonal(dim1=-2, dim2=-1)
    count = torch.arange(len(curved[0]), device=gradient.device)
    latest = torch.where(curved > 0, count, -1).amax(-1, keepdim=True)
    turned = turns.square().sum(-1)
    has = latest[:, 0] >= 0
    latest = latest.clamp(min=0)
    ratio = curved.gather(1, latest)[:, 0] / turned.gather(1, latest)[:, 0]
    scale = torch.where(has, ratio, steepest)[:, None]
    # pairs that do not count are independent of the others
    upper = inner.triu() + torch.diag_embed((curved <= 0).to(inner))
    along, across = moves @ gradient[..., None], turns @ gradient[..., None]
    solved = torch.linalg.solve_triangular(upper, along, upper=True)
    bent = curved[..., None] * solved + scale[..., None] * (turns @ (turns.mT @ solved) - across)
    back = torch.linalg.solve_triangular(upper.mT, bent, upper=False)
    return scale * (gradient - (turns.mT @ solved)[..., 0]) + (moves.mT @ back)[..., 0]
