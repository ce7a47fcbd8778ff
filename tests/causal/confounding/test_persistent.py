"""Causes of a whole episode: the posterior against dense linear algebra, and how far it is from the truth."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.causal import CausalDynamics, Persistent, TimeGraph
from tests.causal.confounding.logs import STATE, schema

GRAPH = TimeGraph([*STATE, ("u[t]", "u[t+1]"), ("u[t]", "a[t]"), ("u[t]", "s[t+1]")])
NOISE, PRIOR = 0.5, 3.0


def lasting(episodes: int, steps: int, *, seed: int = 0) -> bwm.Trajectories:
    """s' = 0.6 s + 0.5 a + u + w and a = -0.3 s + u + nu with u of the episode."""
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(episodes, 1, generator=g, dtype=torch.float64)
    states, actions = [torch.ones(episodes, 1, dtype=torch.float64)], []
    for _ in range(steps):
        nu, w = torch.randn(2, episodes, 1, generator=g, dtype=torch.float64)
        actions.append(-0.3 * states[-1] + u + nu)
        states.append(0.6 * states[-1] + 0.5 * actions[-1] + u + NOISE * w)
    return bwm.Trajectories(schema(), state=torch.stack(states, 1), action=torch.stack(actions, 1))


def dense(log: bwm.Trajectories) -> tuple[Tensor, Tensor]:
    """Mean and covariance of (A, B) by the covariance of an episode written out: NOISE^2 I + 1 1'."""
    x = torch.cat((log.states()[:, :-1], log.action), -1)
    y = log.states()[:, 1:, 0]
    steps = y.shape[1]
    inverse = torch.linalg.inv(NOISE**2 * torch.eye(steps, dtype=torch.float64) + 1.0)
    precision = torch.einsum("nti,ts,nsj->ij", x, inverse, x) + torch.eye(2, dtype=torch.float64) / PRIOR**2
    return torch.linalg.solve(precision, torch.einsum("nti,ts,ns->i", x, inverse, y)), torch.linalg.inv(precision)


@pytest.mark.statistical
def test_posterior_is_that_of_dense_algebra():
    log = lasting(12, 8)
    parameters = {"A": Normal(0.0, PRIOR), "B": Normal(0.0, PRIOR), "u": bwm.Hierarchical(0.0, 1.0)}
    structure = bwm.structures.FromFunction(
        lambda s, a, c, p: p["A"] * s + p["B"] * a + p["u"][..., None], schema=schema(), parameters=parameters
    )
    sampler = bwm.inference.HMC(chains=32, warmup=200, draws=300)
    prototype = bwm.BayesianDynamics(structure=structure, noise=NOISE, inference=sampler)
    model = CausalDynamics(GRAPH, dynamics=prototype).fit(log, seed=0, progress=False)
    assert model.strategy == Persistent(("u",))
    mean, covariance = dense(log)
    drawn = model.outcome.posterior
    for i, name in enumerate("AB"):
        count = float(model.outcome.diagnostics.ess_bulk[name])
        sd = float(covariance[i, i]) ** 0.5
        assert abs(float(drawn[name].mean()) - float(mean[i])) < 4.42 * sd / count**0.5
        assert abs(float(drawn[name].std()) / sd - 1) < 4.42 * (2 * count) ** -0.5
    found = model.predictive(torch.ones(1), torch.ones(1), generator=make_generator(0))
    assert float(found.variance) > 1.0  # of a new episode, whose cause is not known
    with pytest.raises(SpecError, match="single steps"):
        _ = model.behavioural


def test_what_actions_tell_of_the_cause_is_not_used():
    """The bias is towards the confounded answer, 1.0 here, and falls about as one over the length of the episodes."""
    off = [float(dense(lasting(100_000 // steps, steps))[0][1]) - 0.5 for steps in (5, 20, 80)]
    assert off[0] > 0.04
    assert off[0] > 3 * off[1]
    assert off[1] > 3 * abs(off[2])
