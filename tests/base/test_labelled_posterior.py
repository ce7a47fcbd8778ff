import numpy as np
import pytest
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base import SpecError
from bayeswm.base.labelled_posterior import labelled_draws
from bayeswm.base.random import make_generator
from bayeswm.structures import MLP, Pendulum

F64 = torch.float64


def data(episodes: int = 3, steps: int = 10) -> bwm.Trajectories:
    truth, g = bwm.KnownDynamics(structure=Pendulum(), noise=0.05), make_generator(0)
    start = torch.randn(episodes, 2, generator=g, dtype=F64)
    action = torch.randn(episodes, steps, 1, generator=g, dtype=F64)
    paths = bwm.rollout(truth, start, action, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=action)


def ensemble() -> bwm.DeepEnsemble:
    model = bwm.DeepEnsemble(structure=MLP(hidden=(8,)), members=3, epochs=3)
    return model.fit(data(), seed=0, progress=False)


def mixed(tree, log_weight: torch.Tensor) -> torch.Tensor:
    """The log density of each transition, mixed over draws of these weights."""
    joint = torch.from_numpy(tree["log_likelihood"].dataset.to_array().sum("variable").values[0])
    return torch.logsumexp(joint + log_weight[:, None], 0)


@pytest.mark.parametrize("make", [ensemble, lambda: bwm.GaussianProcess(restarts=1).fit(data(), progress=False)])
def test_draws_are_the_worlds_of_the_predictive(make) -> None:
    model = make()
    tree, steps = model.to_datatree(data(), draws=5, generator=make_generator(3)), data().transitions()
    draws = 3 if isinstance(model, bwm.DeepEnsemble) else 5
    assert dict(tree["posterior_predictive"].sizes) == {"chain": 1, "draw": draws, "transition": 30}
    assert tree["log_likelihood"].angle.dims == ("chain", "draw", "transition")
    # the same generator draws the same worlds; single precision of networks
    p = model.predictive(steps.state, steps.action, worlds=5, generator=make_generator(3))
    expected = p.log_score(steps.next_state[:, None].to(p.mean.dtype)).value
    found = mixed(tree, torch.full((draws,), -np.log(draws)))
    torch.testing.assert_close(found.to(expected), expected, rtol=1e-4, atol=1e-4)


def test_observed_data_are_the_next_states_with_their_places() -> None:
    tree, all_of_it = ensemble().to_datatree(data()), data()
    observed, windows = tree["observed_data"].dataset, all_of_it.windows(5)
    assert observed.velocity.attrs == {"units": "rad/s"}
    row = observed.isel(transition=17)
    assert (int(row.episode), int(row.step)) == (1, 7)
    assert float(row.velocity) == float(all_of_it.states()[1, 8, 1])
    # of windows, the places in the recording
    again = ensemble().to_datatree(windows)["observed_data"].dataset
    np.testing.assert_array_equal(again.step, observed.step)
    np.testing.assert_array_equal(again.episode, observed.episode)
    np.testing.assert_array_equal(again.angle, observed.angle)


def test_members_of_unequal_weight_are_resampled() -> None:
    model = ensemble()
    model._log_weight = torch.tensor([0.5, 0.25, 0.25]).log()
    worlds, tree = model.draw(), model.to_datatree(draws=8)
    name = next(k for k, v in worlds.parameters.items() if bool((v[0] != v[1]).any()))
    drawn = torch.from_numpy(tree["posterior"][name].values[0])
    counts = [int((drawn == member).flatten(1).all(-1).sum()) for member in worlds.parameters[name]]
    assert counts == [4, 2, 2]


def test_without_data_there_is_the_posterior_only_and_the_same_one_each_time() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(mass=LogNormal(0.0, 0.1)), noise=0.1)
    first, second = model.to_datatree(draws=4), model.to_datatree(draws=4)
    assert list(first.children) == ["posterior"]
    assert first["posterior"].mass.shape == (1, 4)
    assert first["posterior"].process_noise.noise_variable.values.tolist() == ["angle", "velocity"]
    assert first.identical(second)


def test_of_a_hidden_state_there_are_the_measurements() -> None:
    model = bwm.KnownDynamics(
        structure=Pendulum(), noise=0.01, sensor_noise={"angle": 0.01}, belief={"velocity": Normal(0.0, 1.0)}
    )
    seen = data()
    seen = bwm.Trajectories(model.schema, observation=seen.states()[..., :1], action=seen.action)
    tree = model.to_datatree(seen)
    assert sorted(tree.children) == ["observed_data", "posterior"]
    np.testing.assert_array_equal(tree["observed_data"].angle.values, seen.measurement[..., 0])
    assert tree["observed_data"].angle.dims == ("episode", "state_step")


def test_axes_without_names_are_numbered() -> None:
    values = {"a": torch.zeros(2, 3, 4, 5), "b": torch.zeros(2, 3, 4)}
    found = labelled_draws(values, draw=np.arange(3), labels={"a": {"place": "wxyz"}, "b": {"place": "wxyz"}})
    assert found.a.dims == ("chain", "draw", "place", "a_dim_1")
    assert found.b.sel(place="x").shape == (2, 3)


def test_requests_without_sense() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(), noise=0.1)
    with pytest.raises(SpecError, match="no prior"):
        model.to_datatree(prior=True)
    with pytest.raises(SpecError, match="draws >= 1"):
        model.to_datatree(draws=0)
