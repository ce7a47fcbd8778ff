"""Episodes of a structural model of which some values are missing: what follows from noise for them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Noise
from bayeswm.causal.counterfactuals.free_noise import Fit
from bayeswm.causal.structural.worlds import StructuralWorlds

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Slice(NamedTuple):
    """A slice whose missing values were filled in from their noise.

    Attributes
    ----------
    state : Tensor, shape (worlds, particles, episodes, S)
        Recorded values, and what the mechanisms make of the noise elsewhere.
    noise : Tensor, shape (worlds, particles, episodes, n)
        That of recorded variables is solved, the rest as given.
    solved : Tensor, shape (worlds, particles, episodes, S)
        The noise of recorded variables, 0 elsewhere: its density under N(0, 1) is that of what was recorded, times
    log_scale : Tensor, shape (worlds, particles, episodes)
        the exponential of minus this.
    gap : Tensor, shape (worlds, particles, episodes, S)
        Recorded value minus what a mechanism without noise says, 0 elsewhere.
    """

    state: Tensor
    noise: Tensor
    solved: Tensor
    log_scale: Tensor
    gap: Tensor


class PartlySeen:
    """Recorded episodes, and the mechanisms that say the rest.

    Parameters
    ----------
    worlds : StructuralWorlds
        The system.
    factual : Trajectories
        What was recorded, NaN where it was not.

    Attributes
    ----------
    start : Tensor, shape (episodes, S)
        The first state.
    free : list of tuple of int
        Step and coordinate of the noise that does not follow from a recorded value, in at least one episode.

    Raises
    ------
    DataError
        If the first state is not known and matters.

    Examples
    --------
    Y = 2 X + noise, of which X was not recorded:

    >>> from bayeswm.causal import Mechanism, StructuralModel
    >>> model = StructuralModel({"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X: 2 * X, noise=0.5)})
    >>> nan = float("nan")
    >>> seen = Trajectories(model.schema, state=[[[0.0, 0.0], [nan, 3.0]]], allow_missing=True)
    >>> whole = PartlySeen(model.draw(1), seen)
    >>> whole.free, whole.along(torch.ones(1, 1, 1, 1).double())[0].state.flatten().tolist()
    ([(0, 0)], [1.0, 3.0])
    """

    def __init__(self, worlds: StructuralWorlds, factual: Trajectories) -> None:
        worlds.schema.check_same(factual.schema, who="the model")
        self.worlds = worlds
        states = factual.states().to(worlds.device, worlds.dtype)
        first = states[:, 0]
        if bool(first.isnan().any()) and not worlds.static:
            raise DataError("expected a known first state, got missing values: no mechanism says what came before")
        self.start, self.inside = first.nan_to_num(0.0), factual.step_mask.to(worlds.device)
        self._seen, self._states = ~states[:, 1:].isnan(), states[:, 1:].nan_to_num(0.0)
        given = (v.to(states).nan_to_num(0.0) for v in (factual.action, factual.step_context()))
        self._action, self._context = given
        self.horizon = factual.horizon
        missing = (~self._seen & self.inside[..., None]).any(0)
        noisy = {worlds.schema.state.column(name): i for i, name in enumerate(worlds._noisy)}
        self.free = [(t, noisy[c]) for t, c in missing.nonzero().tolist() if c in noisy]

    def step(self, t: int, before: Tensor, noise: Tensor) -> Slice:
        """Return a slice.

        Parameters
        ----------
        t : int
            The step that leads to it.
        before : Tensor, shape (worlds, particles, episodes, S)
            The slice before.
        noise : Tensor, shape (worlds, particles, episodes, n)
            Noise of what is missing; that of recorded variables is not looked at.
        """
        law = self.worlds.transition(before, self._action[:, t], self._context[:, t], step=t)
        shape, inside = before.shape[:-1], self.inside[:, t]
        columns: list[Tensor | None] = [None] * before.shape[-1]
        nothing = before.new_zeros(shape)
        solved, gap, found_noise = ([nothing] * n for n in (len(columns), len(columns), noise.shape[-1]))
        log_scale = nothing
        for node in law.nodes:
            i = node.column
            found = law.value_of(node, columns)
            location, scale = (v.expand(shape) for v in (found.location, found.scale))
            seen, recorded = self._seen[:, t, i] & inside, self._states[:, t, i]
            own = nothing if found.coordinate is None else noise[..., found.coordinate]
            noisy = seen & (scale > 0) if found.coordinate is not None else torch.zeros_like(seen)
            safe = torch.where(noisy, scale, 1.0)
            solved[i] = torch.where(noisy, (recorded - location) / safe, 0.0)
            gap[i] = torch.where(seen & ~noisy, recorded - location, 0.0)
            log_scale = log_scale + torch.where(noisy, safe.log() + _HALF_LOG_TWO_PI, 0.0)
            if found.coordinate is not None:
                found_noise[found.coordinate] = torch.where(noisy, solved[i], own)
            value = torch.where(seen, recorded, location + scale * own)
            columns[i] = torch.where(inside, value, before[..., i])
        state = torch.stack([c for c in columns if c is not None], -1)
        stacked = (torch.stack(v, -1) if v else nothing[..., None][..., :0] for v in (found_noise, solved, gap))
        both, hidden, apart = stacked
        return Slice(state, both, hidden, log_scale, apart)

    @property
    def size(self) -> int:
        """Number of values of the noise that is free."""
        return len(self.free)

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.start)

    @property
    def records(self) -> int:
        """Residuals and gaps of an episode."""
        return 2 * self.horizon * self.start.shape[-1]

    def fit(self, values: Tensor) -> Fit:
        """Return what values (worlds, particles, episodes, size) of the free noise make of the records."""
        slices = self.along(values)
        solved, gap = (torch.cat([s[i] for s in slices], -1) for i in (2, 4))
        log_scale = torch.stack([s.log_scale for s in slices]).sum(0)
        return Fit(Noise(step=torch.stack([s.noise for s in slices], -2)), solved, log_scale, gap)

    def along(self, values: Tensor) -> list[Slice]:
        """Return all slices, given values (worlds, particles, episodes, len(free)) of the noise that is free."""
        before = self.start.expand(*values.shape[:-1], -1)
        found: list[Slice] = []
        for t in range(self.horizon):
            noise = values.new_zeros(*values.shape[:-1], self.worlds.noise_size)
            here = [(i, coordinate) for i, (step, coordinate) in enumerate(self.free) if step == t]
            if here:
                index, coordinates = torch.tensor(here, device=noise.device).unbind(-1)
                noise = noise.index_copy(-1, coordinates, values[..., index])
            found.append(self.step(t, before, noise))
            before = found[-1].state
        return found


def has_gaps(factual: Trajectories) -> bool:
    """Whether values are missing before an episode's end."""
    states = factual.state
    if states is None:
        return False
    ended = torch.arange(states.shape[1], device=states.device) > factual.lengths[:, None]
    return bool((states.isnan().any(-1) & ~ended).any())
