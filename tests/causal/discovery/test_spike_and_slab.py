"""Inclusion probabilities: evidence against dense algebra, and frequencies among systems drawn at random."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import bayeswm as bwm
from bayeswm.base.errors import DataError, SpecError
from bayeswm.causal import SpikeAndSlab, discover
from bayeswm.causal.discovery.candidates import candidates
from bayeswm.causal.discovery.spike_and_slab import log_evidence


def schema(states, actions):
    """Return variables of a system of that size."""
    named = [[bwm.Variable(f"{letter}{i}") for i in range(n)] for letter, n in (("s", states), ("a", actions))]
    return bwm.Schema(state=named[0], action=named[1], time_step=1.0)


def one_step(inputs, after, states):
    """Return rows as episodes of one step."""
    before = inputs[:, :states]
    return bwm.Trajectories(
        schema(states, inputs.shape[1] - states),
        state=torch.stack((before, after), 1),
        action=inputs[:, None, states:],
    )


def dense_log_evidence(y, features, g):
    """Return the log evidence up to a constant, from the covariance of outcomes around their mean."""
    n = len(y)
    centred = features - features.mean(0)
    hat = centred @ np.linalg.pinv(centred)
    basis = np.linalg.svd(np.eye(n) - 1 / n)[0][:, : n - 1]  # outcomes without their mean
    covariance = basis.T @ (np.eye(n) + g * hat) @ basis
    z = basis.T @ y
    return -0.5 * np.linalg.slogdet(covariance)[1] - (n - 1) / 2 * math.log(z @ np.linalg.solve(covariance, z))


@pytest.mark.parametrize("subset", [(), (0,), (1, 2), (0, 1, 2)])
def test_evidence_against_dense_algebra_and_quadrature(subset):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=g, dtype=torch.float64)
    y = 0.8 * x[:, 1] + torch.randn(12, generator=g, dtype=torch.float64)
    data = one_step(x, torch.stack((y, y, y), -1), 3)
    given = candidates(data, lags=1)
    sets = torch.tensor([[i in subset for i in range(3)]])
    found = float(log_evidence(given.design(0, degree=1), given.outcomes[:, 0], sets))
    null = dense_log_evidence(y.numpy(), np.zeros((12, 0)), 0.0) if not subset else None
    if null is not None:
        assert found == pytest.approx(0.0, abs=1e-9)
        return
    features = x[:, list(subset)].numpy()
    base = dense_log_evidence(y.numpy(), np.zeros((12, 1)), 0.0)

    def integrand(u):  # h = g / n has the quantile (1 - u)^-2 - 1
        return math.exp(dense_log_evidence(y.numpy(), features, 12 * ((1 - u) ** -2 - 1)) - base)

    exact = math.log(integrate.quad(integrand, 0, 1, epsabs=1e-10)[0])
    assert found == pytest.approx(exact, abs=1e-4)


def drawn_from_the_prior(g, *, systems, rows=40, states=3, actions=2):
    """Yield systems whose parents and coefficients are drawn from the prior, with the true parents."""
    p = states + actions
    for _ in range(systems):
        mix = torch.randn(p, p, generator=g, dtype=torch.float64) / 2 + torch.eye(p)
        x = torch.randn(rows, p, generator=g, dtype=torch.float64) @ mix
        after, truth = torch.randn(rows, states, generator=g, dtype=torch.float64), torch.zeros(p, states)
        for j in range(states):
            k = int(torch.randint(p + 1, (1,), generator=g))
            chosen = torch.randperm(p, generator=g)[:k]
            truth[chosen, j] = 1
            if k:
                u = torch.rand(1, generator=g, dtype=torch.float64)
                size = (rows * ((1 - u) ** -2 - 1)).sqrt()
                basis = torch.linalg.qr(x[:, chosen] - x[:, chosen].mean(0)).Q
                # Zellner's prior: the explained part is normal, with variance g, in the span of the features
                after[:, j] += size * basis @ torch.randn(k, generator=g, dtype=torch.float64)
        yield one_step(x, after, states), truth


def autoregressive(g, *, systems, steps=150, states=3, actions=2):
    """Yield sparse linear systems that run, with the true parents."""
    p = states + actions
    for _ in range(systems):
        weight = 0.3 * torch.randn(p, states, generator=g, dtype=torch.float64)
        for j in range(states):
            k = int(torch.randint(p + 1, (1,), generator=g))
            weight[torch.randperm(p, generator=g)[k:], j] = 0
        x = torch.zeros(1, states, dtype=torch.float64)
        action = torch.randn(1, steps, actions, generator=g, dtype=torch.float64)
        path = [x]
        for t in range(steps):
            x = torch.cat((x, action[:, t]), -1) @ weight + torch.randn(1, states, generator=g, dtype=torch.float64)
            path.append(x)
        yield bwm.Trajectories(schema(states, actions), state=torch.stack(path, 1), action=action), weight != 0


def calibration_p(probability, truth):
    """Return the p-value of frequencies by bins of the probability; the edges into one variable go together."""
    p, t = (torch.stack(v).mT.flatten(0, 1) for v in (probability, truth))  # (systems * effects, causes)
    worst = 1.0
    edges = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0 + 1e-9)
    for low, high in pairwise(edges):
        inside = (p >= low) & (p < high)
        if int(inside.sum()) < 20:
            continue
        errors = ((t - p) * inside).sum(-1)
        worst = min(worst, 2 * stats.norm.sf(abs(float(errors.sum() / errors.square().sum().sqrt()))))
    return min(1.0, worst * (len(edges) - 1))


@pytest.mark.statistical
@pytest.mark.parametrize(("made", "effect"), [(drawn_from_the_prior, None), (autoregressive, 0.32)])
def test_inclusion_probabilities_are_frequencies(made, effect):
    g = torch.Generator().manual_seed(1)
    found, truth = [], []
    for data, parents in made(g, systems=250):
        found.append(torch.from_numpy(discover(data, method=SpikeAndSlab(degree=1, effect=effect)).table.values))
        truth.append(parents.double())
    assert calibration_p(found, truth) > 1e-5
    # the test has power: probabilities that are a little too sure are refused
    sure = [torch.sigmoid(2 * torch.logit(p, eps=1e-9)) for p in found]
    assert calibration_p(sure, truth) < 1e-5


def test_small_effects_beside_large_ones_are_seen():
    g = torch.Generator().manual_seed(2)
    x = torch.randn(300, 3, generator=g, dtype=torch.float64)
    y = x[:, 0] + 1e-4 * x[:, 1] + 1e-5 * torch.randn(300, generator=g, dtype=torch.float64)
    draft = discover(one_step(x, torch.stack((y, x[:, 2], y), -1), 3), method=SpikeAndSlab(degree=1))
    assert float(draft.table.sel(cause="s1[t-1]", effect="s0[t]")) > 0.999
    assert float(draft.table.sel(cause="s2[t-1]", effect="s0[t]")) < 0.2


def test_an_action_that_is_a_function_of_the_state_leaves_doubt():
    g = torch.Generator().manual_seed(3)
    s = torch.randn(200, 1, generator=g, dtype=torch.float64)
    after = 0.8 * s + 0.1 * torch.randn(200, 1, generator=g, dtype=torch.float64)
    draft = discover(one_step(torch.cat((s, -s), -1), after, 1), method=SpikeAndSlab(degree=1))
    assert draft.table.values.ravel() == pytest.approx([draft.table.values[0, 0]] * 2)
    assert 0.4 < draft.table.values[0, 0] < 0.9
    assert len(draft.doubtful) == 2


def test_a_constant_candidate_keeps_its_prior():
    g = torch.Generator().manual_seed(4)
    s = torch.randn(200, 1, generator=g, dtype=torch.float64)
    draft = discover(one_step(torch.cat((s, torch.ones_like(s)), -1), 0.9 * s, 1), method=SpikeAndSlab(degree=1))
    # one parent of two, or both: the sets {s} and {s, a} have prior 1/6 and 1/3
    assert draft.table.sel(cause="a0[t-1]").item() == pytest.approx(2 / 3, abs=1e-6)


def test_refusals():
    many = one_step(torch.randn(50, 13, generator=torch.Generator().manual_seed(0)), torch.zeros(50, 2), 2)
    with pytest.raises(SpecError, match=r"at most 12 candidate causes .* got 13 .*ResidualTests"):
        discover(many)
    few = one_step(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 2), 2)
    with pytest.raises(DataError, match="8 steps for 9 features; use degree=1"):
        discover(few)
    for degree in (0, 3, True):
        with pytest.raises(SpecError, match="degree=1"):
            SpikeAndSlab(degree=degree)
    with pytest.raises(SpecError, match="effect > 0"):
        SpikeAndSlab(effect=0.0)
