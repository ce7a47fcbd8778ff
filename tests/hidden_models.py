"""Two small systems whose state is not fully seen: they show that the contract of Worlds carries latent models."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from bayeswm.base import DynamicsModel, Law, Noise, NotInvertible, Schema, Trajectories, Variable, Worlds
from bayeswm.base.laws import Gaussian, MultivariateGaussian
from bayeswm.base.random import standard_normal, uniform


class Belief(NamedTuple):
    """A Gaussian belief about (position, velocity); covariance 0 where the state is known."""

    mean: Tensor
    covariance: Tensor


class BeliefLaw(Law):
    """The belief one step later: one noise coordinate pushes the velocity, what was not known before stays."""

    noise_size = 1

    def __init__(self, mean: Tensor, covariance: Tensor, gain: Tensor) -> None:
        self._mean, self.before, self.gain = mean, covariance, gain.expand(mean.shape)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def covariance(self) -> Tensor:
        return self.before + self.gain[..., :, None] * self.gain[..., None, :]

    @property
    def variance(self) -> Tensor:
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    def push(self, noise: Tensor) -> Belief:
        moved = self._mean + self.gain * noise
        return Belief(moved, self.before.expand(*moved.shape, 2))

    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        if bool(self.before.any()):
            raise NotInvertible("expected a known state before the step, got a belief")
        return Gaussian(self._mean, self.gain, noisy=(1,)).abduct(next_state, tolerance=tolerance)

    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        if marginal or not bool(self.before.any()):
            return Gaussian(self._mean, self.variance.sqrt()).log_prob(state, marginal=marginal, tolerance=tolerance)
        return MultivariateGaussian(self._mean, torch.linalg.cholesky(self.covariance)).log_prob(state)

    def cdf(self, state: Tensor) -> Tensor:
        return Gaussian(self._mean, self.variance.sqrt()).cdf(state)

    def map(self, change: Callable[[Tensor], Tensor]) -> "BeliefLaw":
        return BeliefLaw(change(self._mean), change(self.before.expand(*self._mean.shape, 2)), change(self.gain))


class HiddenVelocityWorlds(Worlds):
    """A damped mass on a spring, pushed by a force; two sensors report its position, one of them scaled.

    Parameters: damping, kick (sd of the velocity's noise a step) of shape (W,), sensor_noise (W, 2).
    """

    schema = Schema(
        state=[Variable("position", unit="m"), Variable("velocity", unit="m/s")],
        action=[Variable("force", unit="N")],
        observation=[Variable("gauge", unit="m"), Variable("lever", unit="m")],
        time_step=0.1,
    )
    noise_size = 1
    prior = MultivariateGaussian(
        torch.tensor([0.5, -0.2], dtype=torch.float64).view(1, 1, 2),
        torch.tensor([[0.6, 0.0], [0.3, 0.8]], dtype=torch.float64),
    )
    sensors = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)

    def __init__(self, parameters: Mapping[str, Tensor], *, log_weight: Tensor, exhaustive: bool) -> None:
        self.parameters = dict(parameters)
        self.log_weight, self.exhaustive = torch.log_softmax(log_weight, 0), exhaustive

    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        return type(self)(parameters, log_weight=log_weight, exhaustive=exhaustive)

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """A (W, 2, 2), B (2,) and G (W, 2) of x' = A x + B a + G n."""
        dt, damping = self.schema.time_step, self.parameters["damping"]
        row = torch.stack((torch.full_like(damping, -2.0 * dt), 1 - damping * dt), -1)
        first = torch.tensor([1.0, dt], dtype=torch.float64).expand(len(self), 2)
        gain = torch.stack((torch.zeros_like(damping), self.parameters["kick"]), -1)
        return torch.stack((first, row), -2), torch.tensor([0.0, dt], dtype=torch.float64), gain

    def start(self, belief: Any, context: Tensor | None = None, noise: Noise | None = None) -> Belief:
        if isinstance(belief, Tensor):
            mean = belief.expand(len(self), 1, *belief.shape)
            return Belief(mean, torch.zeros(*mean.shape, 2, dtype=torch.float64))
        if isinstance(belief, Trajectories):
            known = self._along(belief)[0][-1]
        else:
            mean = belief.mean.expand(len(self), *belief.mean.shape[1:])
            known = Belief(mean, belief.covariance.expand(*mean.shape, 2))
        if noise is None or noise.initial is None:
            return known
        factor = torch.linalg.cholesky(known.covariance)
        state = known.mean + (factor @ noise.initial[..., None])[..., 0]
        return Belief(state, torch.zeros(*state.shape, 2, dtype=torch.float64))

    def initial_noise_size(self, belief: Any) -> int:
        return 0 if isinstance(belief, Tensor) else 2

    def transition(
        self, carry: Belief, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0
    ) -> BeliefLaw:
        A, B, G = self.matrices()
        lead = (len(self), *(1,) * (carry.mean.ndim - 2))
        A, G = A.view(*lead, 2, 2), G.view(*lead, 2)
        return BeliefLaw((A @ carry.mean[..., None])[..., 0] + B * action, A @ carry.covariance @ A.mT, G)

    def state(self, carry: Belief) -> Tensor:
        return carry.mean

    def measurement(self, carry: Belief) -> Gaussian | MultivariateGaussian:
        C, noise = self.sensors, self.parameters["sensor_noise"].view(len(self), *(1,) * (carry.mean.ndim - 2), 2)
        mean = carry.mean @ C.mT
        if not bool(carry.covariance.any()):
            return Gaussian(mean, noise)
        return MultivariateGaussian(
            mean, torch.linalg.cholesky(C @ carry.covariance @ C.mT + noise.square().diag_embed())
        )

    def _update(self, carry: Belief, measured: Tensor, mask: Tensor) -> tuple[Belief, Tensor]:
        """Update on each sensor in turn: their noise is independent."""
        mean, cov = carry
        log_prob = mean.new_zeros(mean.shape[:-1])
        for i, row in enumerate(self.sensors):
            noise = self.parameters["sensor_noise"][:, i].view(len(self), *(1,) * (mean.ndim - 2))
            seen, value = mask[..., i], torch.where(mask[..., i], measured[..., i], 0.0)
            cross = cov @ row
            spread = cross @ row + noise.square()
            miss = value - mean @ row
            gain = torch.where(seen[..., None], cross / spread[..., None], 0.0)
            log_prob = log_prob + torch.where(
                seen, Gaussian((mean @ row)[..., None], spread.sqrt()[..., None]).log_prob(value[..., None]), 0.0
            )
            mean = mean + gain * miss[..., None]
            cov = cov - gain[..., :, None] * cross[..., None, :]
        return Belief(mean, cov), log_prob

    def filter(
        self, carry: Belief, action: Tensor, context: Tensor | None, measurement: Tensor, mask: Tensor | None = None,
        *, step: int | Tensor = 0,
    ) -> tuple[Belief, Tensor]:  # fmt: skip
        law = self.transition(carry, action, context, step=step)
        seen = torch.ones_like(measurement, dtype=torch.bool) if mask is None else mask
        return self._update(Belief(law.mean, law.covariance), measurement, seen)

    def _along(self, trajectory: Trajectories) -> tuple[list[Belief], Tensor]:
        """Filtered beliefs at 0..H (kept after an episode's end) and the log density of all measurements."""
        measured, seen = trajectory.measurement, trajectory.observation_mask
        inside, actions = trajectory.step_mask, torch.nan_to_num(trajectory.action)
        mean = self.prior.mean.expand(len(self), 1, len(trajectory), 2)
        carry, log_prob = self._update(
            Belief(mean, self.prior.covariance.expand(*mean.shape, 2)), measured[:, 0], seen[:, 0]
        )
        beliefs = [carry]
        for t in range(trajectory.horizon):
            new, more = self.filter(carry, actions[:, t], None, measured[:, t + 1], seen[:, t + 1], step=t)
            on = inside[:, t]
            carry = Belief(
                torch.where(on[..., None], new.mean, carry.mean),
                torch.where(on[..., None, None], new.covariance, carry.covariance),
            )
            log_prob = log_prob + torch.where(on, more, 0.0)
            beliefs.append(carry)
        return beliefs, log_prob

    def smoothed(self, trajectory: Trajectories) -> list[Belief]:
        """Rauch-Tung-Striebel: beliefs at 0..H given everything, for episodes of equal length."""
        beliefs, _ = self._along(trajectory)
        out = beliefs[-1:]
        A = self.matrices()[0][:, None, None]
        for t in reversed(range(trajectory.horizon)):
            law = self.transition(beliefs[t], trajectory.action[:, t])
            J = beliefs[t].covariance @ A.mT @ torch.linalg.inv(law.covariance)
            later = out[0]
            mean = beliefs[t].mean + (J @ (later.mean - law.mean)[..., None])[..., 0]
            out.insert(0, Belief(mean, beliefs[t].covariance + J @ (later.covariance - law.covariance) @ J.mT))
        return out

    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        if generator is None:
            raise ValueError("the noise of a hidden state must be drawn")
        beliefs, log_prob = self._along(trajectory)
        A, B, G = self.matrices()
        A, G = A[:, None, None], G[:, None, None]
        actions, inside = torch.nan_to_num(trajectory.action), trajectory.step_mask

        def normal(n: int) -> Tensor:
            return standard_normal((len(self), 1, len(trajectory), n), generator, dtype=torch.float64)

        state = beliefs[-1].mean + (torch.linalg.cholesky(beliefs[-1].covariance) @ normal(2)[..., None])[..., 0]
        steps: list[Tensor] = []
        for t in reversed(range(trajectory.horizon)):
            law, on = self.transition(beliefs[t], actions[:, t]), inside[:, t, None]
            share = torch.linalg.solve(law.covariance, G.expand(law.mean.shape)[..., None])[..., 0]
            mean = (share * (state - law.mean)).sum(-1, keepdim=True)
            noise = mean + (1 - (share * G).sum(-1, keepdim=True)).sqrt() * normal(1)
            before = torch.linalg.solve(A, (state - B * actions[:, t] - G * noise)[..., None])[..., 0]
            state = torch.where(on, before, state)
            steps.insert(0, torch.where(on, noise, float("nan")))
        factor = self.prior.scale_tril
        initial = torch.linalg.solve_triangular(factor, (state - self.prior.mean)[..., None], upper=False)[..., 0]
        return Noise(initial=initial, step=torch.stack(steps, -2)), log_prob


class ModeCarry(NamedTuple):
    """The value, and the probability of each mode (0 or 1 where it is known)."""

    value: Tensor
    mode: Tensor


class ModeLaw(Law):
    """A mixture over the next mode: the first noise coordinate chooses it, the second moves the value."""

    noise_size = 2

    def __init__(self, mode: Tensor, means: Tensor, scales: Tensor) -> None:
        self.mode, self.means, self.scales = torch.broadcast_tensors(mode, means, scales)

    @property
    def mean(self) -> Tensor:
        return (self.mode * self.means).sum(-1, keepdim=True)

    @property
    def variance(self) -> Tensor:
        return (self.mode * (self.scales.square() + (self.means - self.mean).square())).sum(-1, keepdim=True)

    def push(self, noise: Tensor) -> ModeCarry:
        second = (torch.special.ndtr(noise[..., :1]) > self.mode[..., :1]).to(noise.dtype)
        mode = torch.cat((1 - second, second), -1)
        return ModeCarry((mode * (self.means + self.scales * noise[..., 1:])).sum(-1, keepdim=True), mode)

    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        raise NotInvertible("expected a bijection, got a choice of a mode: smooth() draws the noise given a trajectory")

    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        total = torch.logsumexp(self.by_mode(state), -1, keepdim=True)
        return total if marginal else total[..., 0]

    def by_mode(self, state: Tensor) -> Tensor:
        """Log of the probability of each mode and the value together."""
        return self.mode.log() + Gaussian(self.means, self.scales).log_prob(state, marginal=True)

    def cdf(self, state: Tensor) -> Tensor:
        return (self.mode * Gaussian(self.means, self.scales).cdf(state)).sum(-1, keepdim=True)

    def map(self, change: Callable[[Tensor], Tensor]) -> "ModeLaw":
        return ModeLaw(change(self.mode), change(self.means), change(self.scales))


class HiddenModeWorlds(Worlds):
    """x' = slope[mode] x + a + scale[mode] n, where a hidden mode stays with probability ``stay``.

    Parameters: slope, scale of shape (W, 2), stay (W,). The value itself is measured.
    """

    schema = Schema(state=[Variable("x")], action=[Variable("a")], time_step=1.0)
    noise_size = 2
    state_is_measured = True
    first = torch.tensor([0.7, 0.3], dtype=torch.float64)

    def __init__(self, parameters: Mapping[str, Tensor], *, log_weight: Tensor, exhaustive: bool) -> None:
        self.parameters = dict(parameters)
        self.log_weight, self.exhaustive = torch.log_softmax(log_weight, 0), exhaustive

    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        return type(self)(parameters, log_weight=log_weight, exhaustive=exhaustive)

    def switching(self) -> Tensor:
        """Probability of the next mode (last axis) given the mode, shape (W, 2, 2)."""
        stay = self.parameters["stay"]
        return torch.stack((torch.stack((stay, 1 - stay), -1), torch.stack((1 - stay, stay), -1)), -2)

    def start(self, belief: Any, context: Tensor | None = None, noise: Noise | None = None) -> ModeCarry:
        if isinstance(belief, Trajectories):
            return self._along(belief)[0][-1]
        value = belief.expand(len(self), 1, *belief.shape)
        mode = self.first.expand(*value.shape[:-1], 2)
        if noise is not None and noise.initial is not None:
            second = (torch.special.ndtr(noise.initial) > mode[..., :1]).to(value.dtype)
            mode = torch.cat((1 - second, second), -1)
        return ModeCarry(value, mode)

    def initial_noise_size(self, belief: Any) -> int:
        return 1

    def transition(
        self, carry: ModeCarry, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0
    ) -> ModeLaw:
        lead = (len(self), *(1,) * (carry.value.ndim - 2))
        mode = (carry.mode[..., None, :] @ self.switching().view(*lead, 2, 2))[..., 0, :]
        means = self.parameters["slope"].view(*lead, 2) * carry.value + action
        return ModeLaw(mode, means, self.parameters["scale"].view(*lead, 2))

    def state(self, carry: ModeCarry) -> Tensor:
        return carry.value

    def measurement(self, carry: ModeCarry) -> Gaussian:
        return Gaussian(carry.value)

    def filter(
        self, carry: ModeCarry, action: Tensor, context: Tensor | None, measurement: Tensor, mask: Tensor | None = None,
        *, step: int | Tensor = 0,
    ) -> tuple[ModeCarry, Tensor]:  # fmt: skip
        by_mode = self.transition(carry, action, context, step=step).by_mode(measurement)
        value = measurement.expand(*by_mode.shape[:-1], 1)
        return ModeCarry(value, by_mode.softmax(-1)), torch.logsumexp(by_mode, -1)

    def _along(self, trajectory: Trajectories) -> tuple[list[ModeCarry], Tensor]:
        states = trajectory.states()
        carries, total = [self.start(states[:, 0])], torch.zeros(len(self), 1, len(trajectory), dtype=torch.float64)
        for t in range(trajectory.horizon):
            carry, log_prob = self.filter(carries[-1], trajectory.action[:, t], None, states[:, t + 1], step=t)
            carries.append(carry)
            total = total + log_prob
        return carries, total

    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        if generator is None:
            raise ValueError("the mode must be drawn")
        carries, log_prob = self._along(trajectory)
        states, switching = trajectory.states(), self.switching()[:, None, None]
        shape = (len(self), 1, len(trajectory), 1)

        def even() -> Tensor:
            return uniform(shape, generator, dtype=torch.float64)

        def one_hot(probability: Tensor) -> Tensor:
            second = (even() > probability[..., :1] / probability.sum(-1, keepdim=True)).double()
            return torch.cat((1 - second, second), -1)

        def inside(first: Tensor, mode: Tensor) -> Tensor:
            """Noise that chooses ``mode`` where the first mode has probability ``first``."""
            low, width = mode[..., 1:] * first, torch.where(mode[..., :1] > 0, first, 1 - first)
            return torch.special.ndtri(low + width * even().clamp(1e-12, 1 - 1e-12))

        mode = one_hot(carries[-1].mode)
        steps: list[Tensor] = []
        for t in reversed(range(trajectory.horizon)):
            before = one_hot(carries[t].mode * (switching @ mode[..., None])[..., 0])
            law = self.transition(ModeCarry(carries[t].value, before), trajectory.action[:, t])
            move = (mode * (states[:, t + 1] - law.means) / law.scales).sum(-1, keepdim=True)
            steps.insert(0, torch.cat((inside(law.mode[..., :1], mode), move), -1))
            mode = before
        first = self.first[:1].expand(shape)
        return Noise(initial=inside(first, mode), step=torch.stack(steps, -2)), log_prob


class HiddenModel(DynamicsModel):
    """A model that hands out given worlds."""

    def __init__(self, worlds: Worlds) -> None:
        self.worlds = worlds

    @property
    def schema(self) -> Schema:
        return self.worlds.schema

    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        return self

    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> Worlds:
        return self.worlds


def hidden_velocity_worlds(
    *, weights: tuple[float, ...] = (0.5, 0.3, 0.2), exhaustive: bool = True
) -> HiddenVelocityWorlds:
    """Three worlds that differ in damping, process noise and sensor noise."""
    parameters = {
        "damping": torch.tensor([0.1, 0.5, 1.5], dtype=torch.float64),
        "kick": torch.tensor([0.3, 0.1, 0.5], dtype=torch.float64),
        "sensor_noise": torch.tensor([[0.2, 0.1], [0.4, 0.3], [0.1, 0.5]], dtype=torch.float64),
    }
    log_weight = torch.tensor(weights, dtype=torch.float64).log()
    return HiddenVelocityWorlds(parameters, log_weight=log_weight, exhaustive=exhaustive)


def hidden_mode_worlds() -> HiddenModeWorlds:
    """Two worlds with different modes."""
    parameters = {
        "slope": torch.tensor([[0.9, -0.5], [0.7, 0.1]], dtype=torch.float64),
        "scale": torch.tensor([[0.2, 0.5], [0.3, 0.3]], dtype=torch.float64),
        "stay": torch.tensor([0.8, 0.6], dtype=torch.float64),
    }
    log_weight = torch.tensor([0.6, 0.4], dtype=torch.float64).log()
    return HiddenModeWorlds(parameters, log_weight=log_weight, exhaustive=True)
