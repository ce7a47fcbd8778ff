"""A tabular problem of two states, two actions and two steps: expectations by enumeration, without sampling."""

import itertools
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from bayeswm.causal.support.off_policy import (
    Logged,
    doubly_robust,
    effective_episodes,
    log_weights,
    weighted_doubly_robust,
)

STEPS = 2
START = torch.tensor([0.3, 0.7], dtype=torch.float64)
MOVE = torch.tensor([[[0.9, 0.1], [0.4, 0.6]], [[0.2, 0.8], [0.5, 0.5]]], dtype=torch.float64)  # state, action, next
REWARD = torch.tensor([[1.0, -0.5], [0.2, 2.0]], dtype=torch.float64)  # state, action
BEHAVIOUR = torch.tensor([[0.5, 0.5], [0.8, 0.2]], dtype=torch.float64)  # state, action
POLICY = torch.tensor([[0.1, 0.9], [0.6, 0.4]], dtype=torch.float64)


class Enumerated(NamedTuple):
    """All episodes: states and actions (n, H), and the probability of each."""

    states: Tensor
    actions: Tensor
    probability: Tensor


def enumerated() -> Enumerated:
    states, actions, probability = list[tuple[int, ...]](), list[tuple[int, ...]](), list[float]()
    for s0, a0, s1, a1 in itertools.product(range(2), repeat=4):
        states.append((s0, s1))
        actions.append((a0, a1))
        probability.append(float(START[s0] * BEHAVIOUR[s0, a0] * MOVE[s0, a0, s1] * BEHAVIOUR[s1, a1]))
    return Enumerated(torch.tensor(states), torch.tensor(actions), torch.tensor(probability, dtype=torch.float64))


def values(move: Tensor, reward: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return Q (state, action) and V (state) at each step of the policy, for a model of the system."""
    after = torch.zeros(2, dtype=torch.float64)
    q, v = list[Tensor](), list[Tensor]()
    for _ in range(STEPS):
        q.insert(0, reward + move @ after)
        v.insert(0, (POLICY * q[0]).sum(-1))
        after = v[0]
    return q, v


TRUTH = float(START @ values(MOVE, REWARD)[1][0])


def logged(episodes: Enumerated, behaviour: Tensor, move: Tensor, reward: Tensor) -> Logged:
    s, a = episodes.states, episodes.actions
    q, v = values(move, reward)
    return Logged(
        REWARD[s, a],
        (POLICY[s, a] / behaviour[s, a]).log(),
        torch.stack([q[t][s[:, t], a[:, t]] for t in range(STEPS)], 1),
        torch.stack([v[t][s[:, t]] for t in range(STEPS)], 1),
    )


WRONG = (MOVE.flip(-1), REWARD - 3.0)


@pytest.mark.parametrize(
    ("behaviour", "model"),
    [
        pytest.param(BEHAVIOUR, (MOVE, REWARD), id="both right"),
        pytest.param(BEHAVIOUR, WRONG, id="wrong model"),
        pytest.param(BEHAVIOUR, (MOVE, 0 * REWARD), id="importance sampling"),
        pytest.param(BEHAVIOUR.flip(-1), (MOVE, REWARD), id="wrong behaviour"),
    ],
)
def test_one_of_the_two_has_to_be_right(behaviour: Tensor, model: tuple[Tensor, Tensor]) -> None:
    episodes = enumerated()
    parts = doubly_robust(logged(episodes, behaviour, *model))
    assert float(episodes.probability @ parts) == pytest.approx(TRUTH, abs=1e-12)


def test_with_both_wrong_it_is_wrong() -> None:
    episodes = enumerated()
    found = float(episodes.probability @ doubly_robust(logged(episodes, BEHAVIOUR.flip(-1), *WRONG)))
    assert abs(found - TRUTH) > 0.1


def test_a_right_model_has_the_least_variance() -> None:
    episodes = enumerated()

    def variance(model: tuple[Tensor, Tensor]) -> float:
        parts = doubly_robust(logged(episodes, BEHAVIOUR, *model))
        return float(episodes.probability @ (parts - TRUTH).square())

    right, plain = variance((MOVE, REWARD)), variance((MOVE, 0 * REWARD))
    assert right < 0.5 * plain


@pytest.mark.parametrize("model", [(MOVE, REWARD), WRONG, (MOVE, 0 * REWARD)])
def test_weighted_in_the_limit(model: tuple[Tensor, Tensor]) -> None:
    """Episodes as often as they are probable: the mean weight is 1, and both estimates are the same."""
    episodes = enumerated()
    times = (episodes.probability * 1e4).round().long()
    assert (times.double() / 1e4 - episodes.probability).abs().max() < 1e-12
    rows = torch.repeat_interleave(torch.arange(len(times)), times)
    many = Logged(*(v[rows] for v in logged(episodes, BEHAVIOUR, *model)))
    weighted = weighted_doubly_robust(many)
    assert float(weighted.mean()) == pytest.approx(TRUTH, abs=1e-9)


def test_weighted_ignores_a_common_factor_and_is_bounded(generator: torch.Generator) -> None:
    n = 50
    given = Logged(
        *(torch.randn(n, 3, generator=generator, dtype=torch.float64) for _ in range(2)),
        *(torch.zeros(n, 3, dtype=torch.float64) for _ in range(2)),
    )
    moved = given._replace(log_ratio=given.log_ratio + 5.0)
    assert float(weighted_doubly_robust(moved).mean()) == pytest.approx(float(weighted_doubly_robust(given).mean()))
    one_step = Logged(*(v[:, :1] for v in given))
    assert one_step.reward.min() <= weighted_doubly_robust(one_step).mean() <= one_step.reward.max()


def test_the_spread_of_the_weighted_parts_is_that_of_the_estimate(generator: torch.Generator) -> None:
    """Against the jackknife, which knows nothing of the formula; they agree up to terms of 1 / n."""
    n = 400
    given = Logged(*(0.7 * torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(4)))
    parts = weighted_doubly_robust(given)
    error = float(parts.std() / n**0.5)
    left = []
    for i in range(n):
        kept = torch.arange(n) != i
        left.append(float(weighted_doubly_robust(Logged(*(v[kept] for v in given))).mean()))
    jackknife = float(((n - 1) / n * (torch.tensor(left) - sum(left) / n).square().sum()).sqrt())
    assert error == pytest.approx(jackknife, rel=0.03)


def test_effective_episodes() -> None:
    log_ratio = torch.tensor([[0.0, 0.0], [0.0, float("-inf")], [0.0, float("-inf")]], dtype=torch.float64)
    assert effective_episodes(log_weights(log_ratio)).tolist() == pytest.approx([3.0, 1.0])
    assert effective_episodes(torch.full((3, 1), float("-inf"))).tolist() == [0.0]
