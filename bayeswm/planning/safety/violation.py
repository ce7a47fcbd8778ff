"""How often a plan breaks a constraint, on noise that did not choose it."""

from __future__ import annotations

from typing import NamedTuple

from bayeswm.base.mixture import Estimate, mix_mean
from bayeswm.planning.safety.constraints import Constraint, Imagined


class Violation(NamedTuple):
    """Probability of breaking a constraint, with standard errors.

    ``by_step`` has shape (*starts, H), entry h for the state after h + 1 steps; ``jointly``, (*starts), is the
    probability of breaking it at any step. Worlds are the clusters of the error where they are drawn.
    """

    by_step: Estimate
    jointly: Estimate


def violation(constraint: Constraint, imagined: Imagined) -> Violation:
    """Return the share of imagined trajectories that break a constraint, of shapes (*batch, H) and (*batch)."""
    broken = constraint.broken(imagined)
    weight = imagined.log_weight.exp()
    exhaustive = imagined.worlds.exhaustive or imagined.fresh_worlds
    by_step, jointly = (
        mix_mean(values.to(weight), weight, exhaustive=exhaustive) for values in (broken, broken.any(-1))
    )
    return Violation(by_step, jointly)
