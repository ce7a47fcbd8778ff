"""Episodes of a hidden state: what all noise together makes of what was measured."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayeswm.base.laws import Gaussian
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Noise, Worlds
from bayeswm.causal.counterfactuals.free_noise import Fit, slack
from bayeswm.causal.counterfactuals.noise_belief import fits

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class HiddenPath:
    """Recorded episodes of a system whose state or context is hidden; all its noise is free.

    Parameters
    ----------
    worlds : Worlds
        The system.
    factual : Trajectories
        What was measured.

    Attributes
    ----------
    start : Tensor or Law
        The first state where it is measured, else what the first measurement says of it.

    Examples
    --------
    A number that is measured twice without moving, with noise of 0.5: the second measurement is 2 of them off.

    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], time_step=1.0)
    >>> still = bwm.structures.FromFunction(lambda s, a: s, schema=schema)
    >>> model = bwm.KnownDynamics(structure=still, sensor_noise=0.5)
    >>> path = HiddenPath(model.draw(1), bwm.Trajectories(schema, state=[[[0.0], [1.0]]]))
    >>> path.size, path.fit(torch.zeros(1, 1, 1, 1).double()).solved.item()
    (1, 2.0)
    """

    def __init__(self, worlds: Worlds, factual: Trajectories) -> None:
        self.worlds, self.horizon, self.episodes = worlds, factual.horizon, len(factual)
        known = worlds.state_is_measured
        self.start = factual.states()[:, 0].to(worlds.dtype) if known else worlds.beginning(factual)
        measured = factual.measured_as(worlds.schema).to(worlds.device, worlds.dtype)[:, 1:]
        self._seen = ~measured.isnan() & factual.step_mask.to(worlds.device)[..., None]
        self._measured = measured.nan_to_num(0.0)
        given = (v.to(measured).nan_to_num(0.0) for v in (factual.action, factual.step_context()))
        self._action, self._context = given
        self._initial = worlds.initial_noise_size(self.start)
        self.size = self._initial + worlds.episode_noise_size + self.horizon * worlds.noise_size
        self.records = 2 * self.horizon * measured.shape[-1]

    def fit(self, values: Tensor) -> Fit:
        """Return what values (worlds, particles, episodes, size) of the noise make of the records.

        Raises
        ------
        TypeError
            If sensors have other laws than independent normal ones.
        """
        worlds, lead = self.worlds, values.shape[:-1]
        sizes = [self._initial, worlds.episode_noise_size, self.horizon * worlds.noise_size]
        initial, episode, step = values.split(sizes, -1)
        step = step.unflatten(-1, (self.horizon, worlds.noise_size))
        noise = Noise(initial if self._initial else None, episode if worlds.episode_noise_size else None, step)
        carry = worlds.start(self.start, self._context[:, 0], noise)
        solved: list[Tensor] = []
        gap: list[Tensor] = []
        log_scale = values.new_zeros(lead)
        for t in range(self.horizon):
            law = worlds.transition(carry, self._action[:, t], self._context[:, t], step=t)
            carry = law.push(step[..., t, :])
            sensed, seen = worlds.measurement(carry), self._seen[:, t]
            if not isinstance(sensed, Gaussian):
                raise TypeError(f"expected independent normal sensors, got {type(sensed).__name__}")
            mean, spread = (v.expand(*lead, -1) for v in (sensed.mean, sensed.spread))
            noisy = seen & (spread > 0)
            safe, off = torch.where(noisy, spread, 1.0), self._measured[:, t] - mean
            solved.append(torch.where(noisy, off / safe, 0.0))
            gap.append(torch.where(seen & ~noisy, off, 0.0))
            log_scale = log_scale + torch.where(noisy, safe.log() + _HALF_LOG_TWO_PI, 0.0).sum(-1)
        return Fit(noise, torch.cat(solved, -1), log_scale, torch.cat(gap, -1))

    def may_be_affine(self) -> bool:
        """Whether a few points tell nothing against records that are affine in the noise, and the algebra is small."""
        if not fits(self):
            return False
        some = standard_normal((2, self.size), make_generator(1), dtype=torch.float64).to(self._measured)
        points = torch.stack((0 * some[0], some[0], 2 * some[0], some[1], some[0] + some[1]))
        values = points[None, :, None].expand(len(self.worlds), 5, self.episodes, self.size)
        try:
            found = self.fit(values)
        except TypeError:
            return False
        for each in (found.solved, found.gap, found.log_scale[..., None]):
            zero, one, two, other, both = each.unbind(1)
            bend = (two - 2 * one + zero).abs().maximum((both - one - other + zero).abs())
            if not bool((bend <= slack(each.dtype) * each.abs().amax(1).clamp(min=1.0)).all()):
                return False
        return True
