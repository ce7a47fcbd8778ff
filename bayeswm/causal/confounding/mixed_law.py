"""The law of the next state when some inputs of the step are themselves drawn: a mixture over these."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple, override

import torch
from torch import Tensor

from bayeswm.base.errors import EstimateWarning, NotInvertible, SpecError
from bayeswm.base.gauss_hermite import hermite_grid, sobol_normal
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.predictive import warn_caller
from bayeswm.causal.confounding.place import Outcome, Place
from bayeswm.causal.confounding.roots import root_of, triangular
from bayeswm.causal.structural.slice_law import SliceLaw

# Gauss-Hermite points along each drawn coordinate, and the width of the kernel that each stands for in a density
_ORDER = {1: 15, 2: 9, 3: 7, 4: 5}
_FINE = {1: 31, 2: 13, 3: 8, 4: 5}
_WIDTH = {1: 0.3, 2: 0.45, 3: 0.6, 4: 0.8}
_SOBOL = 512


class _Affine(NamedTuple):
    """A step that is affine in what is drawn: ``centre`` (..., S), ``slope`` (..., S, k), ``within`` (..., S, S)."""

    centre: Tensor
    slope: Tensor
    within: Tensor


class MixedLaw(Law):
    """The law of a step given state and action, where further inputs are functions of normal numbers.

    It takes these first and the noise of the step behind them. Moments integrate over the drawn coordinates by
    Gauss-Hermite rules, exact where the step is a polynomial in them of a degree below the number of points. Where it
    is affine with a Gaussian of constant scale, all answers are closed; otherwise densities and cdfs are those of a
    mixture of Gaussians, each of which follows the step's slope around its point.

    Parameters
    ----------
    worlds : Outcome
        Of which :attr:`index` says who is where.
    place : Place
        State, action and context.
    drawn : int
        Coordinates that are drawn.
    noise_size : int
        Of the step's own noise.
    index : Tensor of int, shape (worlds, particles, *batch, 1), optional
        World of each particle; by default the first axis counts them.
    """

    def __init__(
        self, worlds: Outcome, place: Place, *, drawn: int, noise_size: int, index: Tensor | None = None
    ) -> None:
        self.worlds, self.place, self.drawn, self.own = worlds, place, drawn, noise_size
        self.noise_size = drawn + noise_size
        self.index = index
        self._found: _Affine | None = None

    @property
    def lead(self) -> torch.Size:
        """The shape (worlds, particles, *batch)."""
        return self.place.state.shape[:-1]

    # --- given the drawn coordinates --------------------------------------------------------------------------------

    def given(self, drawn: Tensor, *, nodes: bool = False) -> Law:
        """Return the law given the drawn coordinates, of shape (worlds, particles, *batch, k) or one that broadcasts.

        With ``nodes`` there is one more axis, in front of the batch.
        """
        place = self.place.spread() if nodes else self.place
        if self.index is None:
            return _closed(self.worlds.outcome(place, drawn))
        lead = torch.broadcast_shapes(place.state.shape[:-1], drawn.shape[:-1])
        single = (lead[0] * lead[1], 1, *lead[2:])

        def apart(v: Tensor) -> Tensor:
            return v.expand(*lead, v.shape[-1]).reshape(*single, v.shape[-1])

        def together(v: Tensor) -> Tensor:
            v = v.expand(*single, *v.shape[len(single) :])
            return v.reshape(*lead, *v.shape[len(single) :])

        index = self.index[(..., *(0,) * (self.index.ndim - 2))].flatten()
        at = Place(apart(place.state), apart(place.action), apart(place.context), place.step)
        return _closed(self.worlds.picked(index).outcome(at, apart(drawn))).map(together)

    @override
    def push(self, noise: Tensor) -> Tensor:
        further = noise.ndim - len(self.lead) - 1
        if further <= 0:
            return self.given(noise[..., : self.drawn]).push(noise[..., self.drawn :])
        lead = noise.shape[:further]
        points = noise.flatten(0, further - 1).movedim(0, 2)
        pushed = self.given(points[..., : self.drawn], nodes=True).push(points[..., self.drawn :])
        return pushed.movedim(2, 0).unflatten(0, lead)

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        raise NotInvertible(
            f"expected as many numbers in the next state as it has causes, got {self.drawn} hidden one(s) more; pass "
            "the log with the columns that were recorded of them, for which the noise is exact"
        )

    # --- moments ----------------------------------------------------------------------------------------------------

    @cached_property
    def _nodes(self) -> tuple[Tensor, Tensor]:
        """Points (Q, k) and weights (Q,)."""
        points, weight = _rule(self.drawn, _ORDER)
        return points.to(self.place.state), weight.to(self.place.state)

    def _at(self, points: Tensor) -> Law:
        """Return the law at points (Q, k), with an axis of them in front of the batch."""
        batch = len(self.lead) - 2
        return self.given(points.view(1, 1, len(points), *(1,) * batch, self.drawn), nodes=True)

    def _weights(self, like: Tensor) -> Tensor:
        weight = self._nodes[1]
        return weight.view(1, 1, len(weight), *(1,) * (like.ndim - 3))

    @cached_property
    def _by_node(self) -> tuple[Law, Tensor, Tensor]:
        """Laws at the points, their weights, and the mean over them."""
        law = self._at(self._nodes[0])
        means = law.mean
        weight = self._nodes[1].view(1, 1, -1, *(1,) * (means.ndim - 3))
        return law, weight, (weight * means).sum(2)

    @property
    @override
    def mean(self) -> Tensor:
        return self._by_node[2] if self._affine is None else self._affine.centre

    @property
    @override
    def variance(self) -> Tensor:
        if self._affine is not None:
            return self._affine.within.diagonal(dim1=-2, dim2=-1) + self._affine.slope.square().sum(-1)
        law, weight, mean = self._by_node
        return (weight * (law.variance + (law.mean - mean.unsqueeze(2)).square())).sum(2)

    @property
    @override
    def covariance(self) -> Tensor:
        if self._affine is not None:
            return self._affine.within + self._affine.slope @ self._affine.slope.mT
        law, weight, mean = self._by_node
        off = law.mean - mean.unsqueeze(2)
        return (weight[..., None] * (law.covariance + off[..., :, None] * off[..., None, :])).sum(2)

    # --- densities ----------------------------------------------------------------------------------------------------

    @cached_property
    def _affine(self) -> _Affine | None:
        """Centre, slopes and what is left, where the step is affine in what is drawn and its scale constant."""
        if self._found is not None:
            return self._found
        k = self.drawn
        axes = torch.eye(k, dtype=self.place.state.dtype, device=self.place.state.device)
        pairs = [axes[i] + axes[j] for i in range(k) for j in range(i)]
        points = torch.stack((torch.zeros_like(axes[0]), *axes, *(-2 * axes), *(3 * axes), *pairs))
        law = self._at(points)
        if not isinstance(law, Gaussian | MultivariateGaussian):
            return None
        means, spread = law.mean, law.variance if isinstance(law, Gaussian) else law.covariance
        centre, slope = means[:, :, 0], (means[:, :, 1 : k + 1] - means[:, :, :1]).movedim(2, -1)
        predicted = centre.unsqueeze(2) + torch.einsum("qk,...sk->q...s", points, slope).movedim(0, 2)
        # variables may have any units: each is held against its own size
        bend, size = ((v.abs().flatten(0, -2).amax(0)) for v in (means - predicted, means))
        change, eps = (spread - spread[:, :, :1]).abs().amax(), torch.finfo(means.dtype).eps
        if not bool((bend <= 256 * eps * size).all()) or not bool(change <= 256 * eps * spread.abs().amax()):
            return None
        within = spread[:, :, 0]
        self._found = _Affine(centre, slope, torch.diag_embed(within) if isinstance(law, Gaussian) else within)
        return self._found

    @property
    def exact(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether densities are closed."""
        return self._affine is not None

    @cached_property
    def _joint(self) -> MultivariateGaussian:
        """The law in closed form."""
        if self._affine is None:
            raise SpecError("expected a step that is affine in what is drawn")
        scale = torch.diag_embed(self._affine.within.diagonal(dim1=-2, dim2=-1).sqrt())
        if bool((self._affine.within != scale.square()).any()):
            scale = root_of(self.given(self.place.state.new_zeros(*self.lead, self.drawn)))
        return MultivariateGaussian(self._affine.centre, triangular(torch.cat((self._affine.slope, scale), -1)))

    @cached_property
    def _marginal(self) -> Gaussian:
        """Each variable by itself, in closed form."""
        variance = self.variance
        noisy = variance > 0  # the root has no derivative at 0
        return Gaussian(self.mean, torch.where(noisy, torch.where(noisy, variance, 1.0).sqrt(), 0.0))

    @cached_property
    def _mixture(self) -> tuple[Law, Tensor, Tensor]:
        """Laws around the points, slopes (W, P, Q, *batch, S, k) times the kernel's width there, and log weights."""
        width = _WIDTH.get(self.drawn, 0.0)
        points, weight = (v.to(self.place.state) for v in _rule(self.drawn, _FINE))
        points = points * math.sqrt(1 - width**2)
        law = self._at(points)
        if not isinstance(law, Gaussian | MultivariateGaussian) or width == 0.0:
            return law, law.mean.new_zeros(*law.mean.shape, 0), weight.log()
        mean, slopes = law.mean, list[Tensor]()
        count = _FINE[self.drawn]
        axis = points[:: count ** (self.drawn - 1), 0]  # the points are a grid: its differences give slopes and bends
        grid = law.mean.unflatten(2, (count,) * self.drawn)
        for k in range(self.drawn):
            (slope,) = torch.gradient(grid, spacing=(axis,), dim=2 + k, edge_order=2)
            (bend,) = torch.gradient(slope, spacing=(axis,), dim=2 + k, edge_order=2)
            slopes.append(width * slope.flatten(2, 1 + self.drawn))
            mean = mean + width**2 / 2 * bend.flatten(2, 1 + self.drawn)  # a bend moves the mean of a kernel
        centred = (
            Gaussian(mean, law.variance.sqrt())
            if isinstance(law, Gaussian)
            else MultivariateGaussian(mean, law.scale_tril)
        )
        return centred, torch.stack(slopes, -1), weight.log()

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        if self._affine is not None:
            law = self._marginal if marginal else self._joint
            return law.log_prob(state, marginal=marginal, tolerance=tolerance)
        law, slope, log_weight = self._mixture
        further = state.ndim - len(self.lead) - 1
        if slope.shape[-1] and isinstance(law, Gaussian | MultivariateGaussian):
            if marginal:
                sd = (law.variance + slope.square().sum(-1)).sqrt()
                law = Gaussian(_room(law.mean, further), _room(sd, further))
            else:
                root = triangular(torch.cat((slope, root_of(law).expand(*slope.shape[:-1], -1)), -1))
                law = MultivariateGaussian(_room(law.mean, further), _room(root, further))
        elif further > 0:
            law = law.map(lambda v: _room(v, further))
        value = law.log_prob(self._beside(state), marginal=marginal, tolerance=tolerance)
        tail = len(self.lead) - 2 + (1 if marginal else 0)
        return (value + log_weight.view(-1, *(1,) * tail)).logsumexp(-tail - 1)

    def _beside(self, state: Tensor) -> Tensor:
        """Return a state with an axis for the points, in front of the batch."""
        if state.ndim < len(self.lead):
            state = state.expand(*torch.broadcast_shapes(state.shape[:-1], self.lead[2:]), state.shape[-1])
        return state.unsqueeze(-len(self.lead))

    @override
    def cdf(self, state: Tensor) -> Tensor:
        if self._affine is not None:
            return self._marginal.cdf(state)
        law, slope, log_weight = self._mixture
        further = state.ndim - len(self.lead) - 1
        sd = (law.variance + slope.square().sum(-1)).sqrt()
        if slope.shape[-1]:
            law = Gaussian(_room(law.mean, further), _room(sd, further))
        elif further > 0:
            law = law.map(lambda v: _room(v, further))
        value = law.cdf(self._beside(state))
        tail = len(self.lead) - 1
        return (value * log_weight.exp().view(-1, *(1,) * tail)).sum(-tail - 1)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> MixedLaw:
        index = self.index
        if index is None:
            order = torch.arange(self.lead[0], device=self.place.state.device)
            index = order.view(-1, *(1,) * len(self.lead)).expand(*self.lead, 1)
        index = change(index)
        home = torch.arange(len(index), device=index.device).view(-1, *(1,) * (index.ndim - 1))
        same = self.index is None and index.shape[0] == self.lead[0] and bool((index == home).all())
        found = MixedLaw(
            self.worlds,
            self.place.map(change),
            drawn=self.drawn,
            noise_size=self.own,
            index=None if same else index,
        )
        if self._found is not None:  # found once, it need not be found again
            found._found = _Affine(*map(change, self._found))
        return found


def _closed(law: Law) -> Law:
    """Return the law of a slice whose mechanisms are affine in its noise as the Gaussian that it is."""
    if not isinstance(law, SliceLaw) or not law.normal:
        return law
    if not law.inner:
        return Gaussian(law.mean, law.variance.sqrt())
    values, vectors = torch.linalg.eigh(law.covariance)
    root = vectors * values.clamp(min=0.0).sqrt()[..., None, :]
    return MultivariateGaussian(law.mean, triangular(root))


def _room(values: Tensor, further: int) -> Tensor:
    """Return values with axes in front of the worlds, as a state with axes in front of its own has."""
    return values.view(*(1,) * further, *values.shape) if further > 0 else values


def _rule(size: int, order: Mapping[int, int]) -> tuple[Tensor, Tensor]:
    if size not in order:
        warn_caller(f"moments over {size} hidden causes by {_SOBOL} quasi-random points are estimates", EstimateWarning)
        return sobol_normal(size, _SOBOL)
    return hermite_grid(size, order[size])
