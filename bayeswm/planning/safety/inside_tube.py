"""Chance constraints on whole trajectories by tubes: all of the tube has to lie in the safe set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian
from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.draws import draw_quantile
from bayeswm.diagnostics.tube import AXES, EllipsoidTube, Tube, TubeMethod
from bayeswm.diagnostics.tubes import leave_one_out
from bayeswm.planning.safety.chance import Assessment, ChanceConstraint
from bayeswm.planning.safety.constraints import Imagined
from bayeswm.planning.safety.safe_sets import HalfSpaces, half_spaces

# numbers of the candidates that are in work at one time
_WORK = 2**22


@dataclass(frozen=True)
class InsideTube(Assessment):
    """Asks that a tube around the trajectories, which holds 1 - probability of them, lies in all half-spaces.

    The excess is how far it reaches out, summed over steps and half-spaces, in the unit of the margin.

    Parameters
    ----------
    tube : SupT, Ranks, Ellipsoid, ConformalTube or another method, optional
        Makes a tube of the states that holds steps and variables together (``over``), or steps only where one variable
        is bounded. These reach to both sides, and half of the trajectories that leave them do so where nothing is
        broken. By default the margins have a tube of their own, to the side that matters: mean - c standard deviations,
        with one c for all steps and half-spaces, from the particles' largest deviations (sup-t).

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.structures.Pendulum.swing_up().schema
    >>> safe = bwm.planning.HalfSpaces.between(schema, {"velocity": (-6.0, 6.0)})
    >>> slow = ChanceConstraint(safe, probability=0.05, jointly=True, by=InsideTube(bwm.diagnostics.Ellipsoid()))
    >>> slow.jointly
    True
    """

    tube: TubeMethod | None = None

    @override
    def check(self, chance: ChanceConstraint) -> None:
        safe = half_spaces(chance.inside)
        if not chance.jointly:
            raise SpecError("expected jointly=True for a tube, which holds whole trajectories, got jointly=False")
        over = AXES if self.tube is None else tuple(self.tube.over)
        if "horizon" not in over or ("variable" not in over and len(safe.columns) > 1):
            raise SpecError(
                "expected a tube that holds steps and variables together, over=('horizon', 'variable'), got one over "
                f"{over}"
            )

    @override
    def excess(self, chance: ChanceConstraint, imagined: Imagined) -> Tensor:
        safe, level = half_spaces(chance.inside), 1 - chance.probability
        if self.tube is None:
            nearest = one_sided(safe, imagined, level=level)
        else:
            nearest = support(safe, self.tube(_predictive(imagined), level=level))
        lost = ~imagined.reached.detach().isfinite().flatten(-2).all(-1)
        out = (-nearest).clamp(min=0.0).sum((-2, -1))
        return torch.where(lost.flatten(0, 1).any(0), float("inf"), out)


def one_sided(safe: HalfSpaces, imagined: Imagined, *, level: float) -> Tensor:
    """Return the lower ends of a tube around the margins, that whole trajectories stay above with a probability.

    Parameters
    ----------
    safe : HalfSpaces
        n of them.
    imagined : Imagined
        Particles.
    level : float
        The probability.

    Returns
    -------
    Tensor, shape (*batch, H, n)
        Minus infinity where there are too few draws.
    """
    margins = safe.margins(imagined.reached).flatten(-2)
    lead = margins.shape[:2]
    batch, size = margins.shape[2:-1], margins.shape[-1]
    flat = margins.reshape(*lead, -1, size)
    weight = (imagined.log_weight.exp().to(flat) / lead[1])[:, None, None].expand(*lead, 1)
    if not imagined.clustered:
        flat, weight = flat.flatten(0, 1)[:, None], weight.flatten(0, 1)[:, None]
    step = max(1, _WORK // max(1, flat[:, :, 0].numel()))
    found = [_lower(flat[:, :, at : at + step], weight, level=level) for at in range(0, flat.shape[2], step)]
    return torch.cat(found).reshape(*batch, -1, len(safe.normal))


def support(safe: HalfSpaces, tube: Tube) -> Tensor:
    """Return the margin of the point of a tube that comes nearest to each half-space's edge, or is furthest beyond it.

    Parameters
    ----------
    safe : HalfSpaces
        n of them.
    tube : Tube
        With ends of shape (*batch, H, S).

    Returns
    -------
    Tensor, shape (*batch, H, n)

    Examples
    --------
    >>> from bayeswm.base.schema import Variable, Variables
    >>> ends = torch.tensor([[1.0], [2.0]])
    >>> tube = Tube(-ends, ends, level=0.9, over=AXES, variables=Variables([Variable("x")]), time_step=0.1)
    >>> support(HalfSpaces(torch.tensor([[1.0], [-1.0]]), torch.tensor([1.5, 2.5])), tube).tolist()
    [[0.5, 1.5], [-0.5, 0.5]]
    """
    normal, offset = safe.normal.to(tube.lower), safe.offset.to(tube.lower)
    if isinstance(tube, EllipsoidTube) and tube.over == AXES:
        steps, size = tube.center.shape[-2:]
        blocks = tube.correlation[..., 0, :, :].unflatten(-1, (steps, size)).unflatten(-3, (steps, size))
        own = blocks.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
        row = normal * tube.scale[..., None, :]
        reach = torch.einsum("...ni,...ij,...nj->...n", row, own, row).clamp(min=0.0).sqrt()
        return offset - tube.center @ normal.mT - tube.radius[..., None] * reach
    # what is not bounded may be infinite
    ends = torch.where(normal > 0, tube.upper[..., None, :], tube.lower[..., None, :])
    return offset - torch.where(normal == 0, 0.0, normal * ends).sum(-1)


def _lower(x: Tensor, weight: Tensor, *, level: float) -> Tensor:
    """Return mean - c sd of draws (units, members, windows, K), shape (windows, K)."""
    finite = x.detach().isfinite()
    x = torch.where(finite, x, 0.0)
    center, scale, score = leave_one_out(x, weight)
    # how far below; the tube is not to shrink where all draws of a window are at one place
    worst = torch.where(x <= center, score, 0.0).amax(-1, keepdim=True)
    critical = draw_quantile(worst, weight.expand(*weight.shape[:2], x.shape[2]), level)
    return torch.where(critical.isinf() & (scale > 0), -float("inf"), center - critical.nan_to_num(posinf=0.0) * scale)


def _predictive(imagined: Imagined) -> Predictive:
    """Return the particles as a predictive, without the laws that they came from."""
    reached, worlds = imagined.reached, imagined.worlds
    return Predictive(
        worlds.schema.state,
        [Gaussian(x) for x in reached.unbind(-2)],
        worlds.log_weight,
        exhaustive=worlds.exhaustive,
        time_step=worlds.schema.time_step,
        particles=reached.movedim(-2, 0),
        resolved=[reached.shape[1] == 1 and worlds.exhaustive] * reached.shape[-2],
        fresh_worlds=imagined.fresh_worlds,
    )
