"""A system with a hidden mode: filter and smoother against the sum over all paths of modes."""

import itertools
import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Trajectories
from tests.hidden_models import HiddenModel, hidden_mode_worlds
from tests.statistical.checks import BUDGET, chi_square_p, mean_p

STATES = torch.tensor([0.3, 0.9, -0.2, 0.5, 0.4], dtype=torch.float64)[None, :, None]
ACTIONS = torch.tensor([0.5, 0.2, -0.1, 0.3], dtype=torch.float64)[None, :, None]


def data() -> Trajectories:
    return Trajectories(hidden_mode_worlds().schema, state=STATES, action=ACTIONS)


def paths(w: int) -> dict[tuple[int, ...], float]:
    """Log of the joint probability of each path of modes and the states, by brute force."""
    worlds = hidden_mode_worlds()
    slope, scale = (worlds.parameters[k][w].tolist() for k in ("slope", "scale"))
    switch = worlds.switching()[w].tolist()
    x, a = STATES[0, :, 0].tolist(), ACTIONS[0, :, 0].tolist()
    out = {}
    for modes in itertools.product((0, 1), repeat=5):
        total = math.log(float(worlds.first[modes[0]]))
        for t in range(4):
            m = modes[t + 1]
            z = (x[t + 1] - slope[m] * x[t] - a[t]) / scale[m]
            total += math.log(switch[modes[t]][m]) - 0.5 * z * z - math.log(scale[m]) - 0.5 * math.log(2 * math.pi)
        out[modes] = total
    return out


def test_filter_is_the_exact_forward_algorithm() -> None:
    worlds = hidden_mode_worlds()
    carry = worlds.start(data())
    _, log_density = worlds.smooth(data(), generator=torch.Generator().manual_seed(0))
    for w in range(2):
        exact = paths(w)
        total = math.log(sum(map(math.exp, exact.values())))
        last = sum(math.exp(v - total) for modes, v in exact.items() if modes[-1] == 1)
        assert float(carry.mode[w, 0, 0, 1]) == pytest.approx(last, abs=1e-10)
        assert float(log_density[w, 0, 0]) == pytest.approx(total, abs=1e-10)


@pytest.mark.statistical
def test_smooth_draws_paths_of_modes_with_their_exact_probability() -> None:
    worlds, n = hidden_mode_worlds(), 20000
    copies = data()[torch.zeros(n, dtype=torch.int64)]
    noise, _ = worlds.smooth(copies, generator=torch.Generator().manual_seed(1))
    assert noise.initial is not None
    assert noise.step is not None
    carry = worlds.start(STATES[0, 0].expand(n, 1), noise=noise)
    code = carry.mode[..., 1]
    for t in range(4):
        carry = worlds.step(carry, ACTIONS[0, t], noise=noise.step[..., t, :])
        torch.testing.assert_close(
            carry.value, STATES[0, t + 1].expand_as(carry.value)
        )  # the noise replays what was seen
        code = 2 * code + carry.mode[..., 1]
    for w in range(2):
        exact = torch.tensor(list(paths(w).values()), dtype=torch.float64).softmax(0)
        count = torch.bincount(code[w, 0].long(), minlength=32).double()
        large = exact * n > 5
        statistic = ((count - n * exact).square() / (n * exact))[large].sum()
        assert chi_square_p(statistic, int(large.sum()) - 1) > BUDGET
        assert float(count[~large].sum()) < 10 + 5 * float((n * exact[~large]).sum())


def test_law_is_a_mixture_that_cannot_be_inverted() -> None:
    worlds = hidden_mode_worlds()
    law = worlds.transition(worlds.start(torch.tensor([0.4], dtype=torch.float64)), torch.zeros(1, dtype=torch.float64))
    with pytest.raises(bwm.NotInvertible, match="smooth"):
        law.abduct(torch.zeros(1))
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    mass = torch.trapezoid(law.map(lambda v: v[:, :, None]).log_prob(grid).exp(), grid[:, 0], dim=-1)
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=1e-8, rtol=0)


@pytest.mark.statistical
def test_rollout_and_predictive_see_only_the_contract() -> None:
    worlds, start = hidden_mode_worlds(), torch.tensor([0.4], dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    r = bwm.rollout(worlds, start, ACTIONS[0], particles=20000, generator=g)
    # exact mean: modes are a Markov chain of their own, so the mean follows E[x 1(mode)]
    for w in range(2):
        slope, switch = worlds.parameters["slope"][w], worlds.switching()[w]
        probability, first = worlds.first, worlds.first * start
        means = []
        for t in range(4):
            probability, first = probability @ switch, slope * (first @ switch) + (probability @ switch) * ACTIONS[0, t]
            means.append(first.sum())
        assert mean_p(r.particles[w, :, :, 0], torch.stack(means)) > BUDGET
    joint = r.log_score(STATES[0, 1:])
    start_known = bwm.rollout(worlds, STATES[0, 0], ACTIONS[0], particles=2000, generator=g)
    joint = start_known.log_score(STATES[0, 1:])
    _, exact = worlds.smooth(data(), generator=g)
    total = torch.logsumexp(exact[:, 0, 0] + worlds.log_weight, 0)
    assert abs(float(joint.value - total)) < 4.5 * float(joint.standard_error)
    p = HiddenModel(worlds).predictive(start, torch.zeros(1), generator=g, particles=100)
    assert p.sample(50, generator=g).shape == (50, 1, 1)
