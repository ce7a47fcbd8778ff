"""Structural models whose uncertain parameters were learned from episodes: exactly where they can be, else by draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, override

import torch

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator, permutation
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.causal.structural.parameter_density import ParameterDensity, worlds_of
from bayeswm.causal.structural.worlds import StructuralWorlds
from bayeswm.inference.affine import AffineMean
from bayeswm.inference.hmc import HMC
from bayeswm.inference.joint import Inferred
from bayeswm.inference.normal_inverse_gamma import NormalRegression
from bayeswm.inference.tempering import temper

if TYPE_CHECKING:
    from bayeswm.causal.structural.model import StructuralModel

# draws of the laws before data, and how they are moved
_DRAWS, _HMC = 1024, HMC()


class ConditionedModel(DynamicsModel):
    """A structural model given episodes; made by ``StructuralModel.condition``.

    Where all uncertain parameters have normal laws, the variables are affine in them and their noise is known, the
    posterior is normal and exact. Otherwise draws of the laws take the episodes in by tempered importance resampling
    with rejuvenation (see :func:`bayeswm.inference.temper`), and more episodes later in the same way.

    Parameters
    ----------
    model : StructuralModel
        With laws for some parameters.
    trajectories : Trajectories
        All that it is conditioned on; values may be missing where the rest of a slice is affine in their noise.
    before : ConditionedModel, optional
        The model given the first of these episodes.

    Attributes
    ----------
    posterior : NormalRegression or Inferred
        Mean and precision of the parameters, in the order of ``names``, or draws of them.
    names : tuple of str
        The uncertain parameters.

    Raises
    ------
    FitError
        If draws cannot take the episodes in.
    SpecError, DataError
        For episodes that do not fit, missing values that leave no closed form.

    Examples
    --------
    theta ~ N(1, 1) in s = theta a + N(0, 1), with a = 1 and s = 2 seen: theta is N(1.5, 0.5).

    >>> import bayeswm as bwm
    >>> from torch.distributions import Normal
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    >>> gain = bwm.causal.Mechanism(lambda a, theta: theta * a, noise=1.0)
    >>> model = bwm.causal.StructuralModel({"s": gain}, schema=schema, parameters={"theta": Normal(1.0, 1.0)})
    >>> seen = bwm.Trajectories(schema, state=[[[0.0], [2.0]]], action=[[[1.0]]])
    >>> found = model.condition(seen).posterior
    >>> round(found.mean.item(), 6), round(found.covariance.item(), 6)
    (1.5, 0.5)
    """

    def __init__(
        self, model: StructuralModel, trajectories: Trajectories, *, before: ConditionedModel | None = None
    ) -> None:
        self.inner, self.trajectories = model, trajectories
        density = ParameterDensity(model, trajectories)
        self.names = tuple(density.joint.laws)
        # the answer must not depend on who asks when
        generator = make_generator(0)
        with torch.inference_mode(False), torch.no_grad():
            exact = None if density.partly else _exact(density, generator)
            self.posterior = exact or _drawn(density, before, generator)

    @property
    @override
    def schema(self) -> Schema:
        return self.inner.schema

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Refuse: the model has learned already.

        Raises
        ------
        SpecError
            Always.
        """
        raise SpecError("expected to condition this model on more episodes, or to condition the model that it came of")

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> StructuralWorlds:
        """Draw systems from the posterior; of draws each comes at most once while there are enough."""
        if worlds < 1:
            raise SpecError(f"expected worlds >= 1, got {worlds}")
        if generator is None:
            raise SpecError(f"parameter {self.names[0]!r} is uncertain: pass generator= to draw it")
        if isinstance(self.posterior, NormalRegression):
            values = self.posterior.draw(worlds, make_generator(generator))
            return worlds_of(self.inner, dict(zip(self.names, values.unbind(-1), strict=True)))
        count = self.posterior.draws
        rounds = [permutation(count, generator, device="cpu") for _ in range(-(-worlds // count))]
        picked = torch.cat(rounds)[:worlds]
        return worlds_of(self.inner, {k: v.flatten()[picked] for k, v in self.posterior.values.items()})

    @override
    def prior(self, worlds: int, *, generator: torch.Generator) -> StructuralWorlds:
        """Draw systems from the laws before data."""
        return self.inner.prior(worlds, generator=generator)

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return the model given these episodes too."""
        if in_training:
            return self
        return ConditionedModel(self.inner, Trajectories.concatenate([self.trajectories, trajectories]), before=self)

    @override
    def __repr__(self) -> str:
        return f"ConditionedModel({self.inner!r}, {len(self.trajectories)} episode(s))"


def _exact(density: ParameterDensity, generator: torch.Generator) -> NormalRegression | None:
    """Return the normal posterior, or None where there is none."""
    try:
        mean = AffineMean(density.joint)
        mean.check(generator)
    except SpecError:
        return None
    prior = mean.coefficients
    law = NormalRegression(torch.zeros_like(prior.mean), torch.linalg.inv(prior.covariance))
    for rows in mean:
        if not bool((rows.noise > 0).all()):
            return None
        phi, y = rows.phi / rows.noise[..., None], rows.y / rows.noise
        law = law.update(phi.flatten(0, 1), y.flatten())
    return NormalRegression(law.mean + prior.mean, law.precision)


def _drawn(density: ParameterDensity, before: ConditionedModel | None, generator: torch.Generator) -> Inferred:
    joint, since = density.joint, 0
    if before is not None and isinstance(before.posterior, Inferred):
        known, since = before.posterior, density.rows(len(before.trajectories))
    else:
        known = Inferred({k: v[None] for k, v in joint.values(joint.flat.sample(_DRAWS, generator)).items()})
    return temper(joint, since, known, rejuvenate=_HMC.rejuvenate, generator=generator)
