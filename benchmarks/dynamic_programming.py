"""Dynamic programming on a grid for systems of one angle and one velocity: what the best possible controller gets.

The value of each step is kept on a grid and read by bilinear interpolation, periodic in the angle. The policy looks one
step ahead with finer actions; what it collects in the true system is a lower bound of the optimum, and close to it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import bayeswm as bwm


@dataclass(frozen=True)
class Grid:
    """Points of the angle (one turn), of the velocity (up to ``speed``), and torques tried (up to ``torque``)."""

    speed: float
    torque: float
    angles: int = 301
    speeds: int = 281
    torques: int = 31


class Optimum:
    """The best controller of a known pendulum over a finite horizon.

    ``reward(before, action, after)`` is collected in each of ``steps`` steps.
    """

    def __init__(
        self,
        system: bwm.Worlds,
        reward: Callable[[Tensor, Tensor, Tensor], Tensor],
        grid: Grid,
        *,
        steps: int,
    ) -> None:
        self.system, self.reward, self.grid, self.steps = system, reward, grid, steps
        angle = torch.arange(grid.angles, dtype=torch.float32) * (2 * math.pi / grid.angles)
        speed = torch.linspace(-grid.speed, grid.speed, grid.speeds)
        points = torch.cartesian_prod(angle, speed)
        torques = torch.linspace(-grid.torque, grid.torque, grid.torques)
        rewards, corners, weights = [], [], []
        for torque in torques:
            action = torque.expand(len(points), 1)
            after = self.step(points, action)
            rewards.append(reward(points, action, after))
            corner, weight = self._corners(after)
            corners.append(corner)
            weights.append(weight)
        immediate = torch.stack(rewards)
        index, share = torch.stack(corners), torch.stack(weights)
        value = torch.zeros(len(points))
        self.values = [value]
        for _ in range(steps):
            later = sum(share[..., k] * value[index[..., k]] for k in range(4))
            value = (immediate + later).amax(0)
            self.values.append(value)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """The true next state, without noise."""
        carry = self.system.start(state)
        return self.system.transition(carry, action).mean[0, 0]

    def _corners(self, state: Tensor) -> tuple[Tensor, Tensor]:
        g = self.grid
        a = torch.remainder(state[..., 0], 2 * math.pi) * (g.angles / (2 * math.pi))
        v = (state[..., 1].clamp(-g.speed, g.speed) + g.speed) * ((g.speeds - 1) / (2 * g.speed))
        low_a, low_v = a.floor(), v.floor().clamp(max=g.speeds - 2)
        fa, fv = a - low_a, v - low_v
        first, second = low_a.long() % g.angles, (low_a.long() + 1) % g.angles
        row = low_v.long()
        index = torch.stack((first * g.speeds + row, first * g.speeds + row + 1), -1)
        index = torch.cat((index, torch.stack((second * g.speeds + row, second * g.speeds + row + 1), -1)), -1)
        weight = torch.stack(((1 - fa) * (1 - fv), (1 - fa) * fv, fa * (1 - fv), fa * fv), -1)
        return index, weight

    def returns(self, starts: Tensor, *, torques: int = 161) -> Tensor:
        """What the policy collects from each start (n, 2) in the true system."""
        state, total = starts.float(), torch.zeros(len(starts))
        fine = torch.linspace(-self.grid.torque, self.grid.torque, torques)
        for left in range(self.steps, 0, -1):
            many = state[:, None].expand(-1, torques, -1)
            action = fine[None, :, None].expand(len(starts), -1, -1)
            after = self.step(many, action)
            index, weight = self._corners(after)
            worth = self.reward(many, action, after) + (self.values[left - 1][index] * weight).sum(-1)
            best = worth.argmax(1)
            rows = torch.arange(len(starts))
            total += self.reward(state, action[rows, best], after[rows, best])
            state = after[rows, best]
        return total
