import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal.structural.parameter_density import ParameterDensity, worlds_of
from tests.causal.structural.test_conditioned import episodes, pair


def test_the_density_of_steps_is_that_of_the_worlds() -> None:
    data = episodes(2, 4)
    density = ParameterDensity(pair(), data)
    values = {k: torch.tensor([0.3, -1.0, 2.0]).double() for k in ("b", "k", "m")}
    expected = worlds_of(pair(), values).smooth(data)[1][:, 0].sum(-1)
    each = density.joint.log_likelihood(values, None)
    torch.testing.assert_close(each.sum(-1), expected)
    torch.testing.assert_close(density.joint.log_likelihood(values, torch.tensor([1, 5])), each[:, [1, 5]])
    assert (density.rows(1), density.joint.terms, density.partly) == (4, 8, False)


def test_the_mean_and_the_noise_say_the_same() -> None:
    density = ParameterDensity(pair(), episodes(2, 4))
    assert density.joint.predict is not None
    assert density.joint.target is not None
    values = {k: torch.tensor([0.3]).double() for k in ("b", "k", "m")}
    mean, noise = density.joint.predict(values, None)
    own = Normal(mean, noise).log_prob(density.joint.target).sum(-1)
    torch.testing.assert_close(own, density.joint.log_likelihood(values, None))


def test_missing_values_make_episodes_the_rows() -> None:
    data = episodes(3, 2)
    states = data.states().clone()
    whole = ParameterDensity(pair(), data)
    states[1, 2, 1] = float("nan")
    gaps = bwm.Trajectories(pair().schema, state=states, allow_missing=True)
    density = ParameterDensity(pair(), gaps)
    assert (density.partly, density.joint.terms, density.rows(2)) == (True, 3, 2)
    values = {k: torch.tensor([0.3]).double() for k in ("b", "k", "m")}
    by_step = whole.joint.log_likelihood(values, None).view(1, 3, 2).sum(-1)
    found = density.joint.log_likelihood(values, None)
    torch.testing.assert_close(found[:, [0, 2]], by_step[:, [0, 2]])
    assert float(found[0, 1]) != float(by_step[0, 1])
