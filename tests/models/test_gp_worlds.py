"""Worlds of a Gaussian process: batches, policies, contexts, and a mean that changes with time."""

import threading

import pytest
import torch

import bayeswm as bwm
from bayeswm.structures import FromFunction

F64 = torch.float64
SCHEMA = bwm.Schema(
    state=[bwm.Variable("x"), bwm.Variable("y")],
    action=[bwm.Variable("u")],
    context=[bwm.Variable("wind"), bwm.Variable("heading", kind="angle")],
    time_step=0.1,
)
DRIFT = FromFunction(lambda x, u, c, p: x + p["gain"] * u + 0.1 * c[..., :1], schema=SCHEMA, parameters={"gain": 0.3})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def recordings(episodes=4, steps=12):
    g = seeded()
    action = torch.randn(episodes, steps, 1, generator=g, dtype=F64)
    context = torch.randn(episodes, 2, generator=g, dtype=F64)
    state = torch.randn(episodes, steps + 1, 2, generator=g, dtype=F64).cumsum(1)
    return bwm.Trajectories(SCHEMA, state=state, action=action, context=context)


@pytest.fixture(scope="module")
def model():
    return bwm.GaussianProcess(mean=DRIFT, restarts=1, features=64).fit(recordings(), progress=False)


def question(n=3):
    g = seeded(1)
    return (torch.randn(n, size, generator=g, dtype=F64) for size in (2, 1, 2))


def test_the_law_is_mean_plus_function_with_the_learned_noise(model):
    state, action, context = question()
    worlds = model.draw(2000, generator=seeded(2))
    law = worlds.transition(worlds.start(state), action, context)
    assert law.mean.shape == (2000, 1, 3, 2)
    torch.testing.assert_close(law.variance, model.hyper.noise.square().expand_as(law.mean))
    exact = model.posterior(state, action, context=context)
    z = (law.mean[:, 0].mean(0) - exact.mean) / (exact.variance / 2000).sqrt()
    assert float(z.abs().max()) < 5


def test_one_state_for_all_worlds_is_a_shortcut_and_nothing_else(model):
    state, action, context = question()
    worlds = model.draw(5, generator=seeded(2))
    shared = worlds.transition(worlds.start(state), action, context).mean
    apart = worlds.transition(worlds.start(state).clone().expand(5, 4, 3, 2), action, context).mean
    torch.testing.assert_close(apart, shared.expand(5, 4, 3, 2), rtol=0, atol=1e-11)


def test_actions_may_belong_to_worlds_and_particles(model):
    state, _, context = question()
    worlds = model.draw(5, generator=seeded(2))
    action = torch.randn(5, 4, 3, 1, generator=seeded(3), dtype=F64)
    together = worlds.transition(worlds.start(state), action, context).mean
    assert together.shape == (5, 4, 3, 2)
    for w, p in ((0, 1), (4, 3)):
        alone = worlds[w].transition(worlds[w].start(state), action[w, p], context).mean
        torch.testing.assert_close(together[w, p], alone[0, 0], rtol=0, atol=1e-11)
    r = bwm.rollout(
        worlds, state, lambda x, t: -x[..., :1], horizon=3, particles=4, context=context, generator=seeded()
    )
    assert r.particles.shape == (5, 4, 3, 3, 2)


def test_a_heading_more_by_a_turn_is_the_same_context(model):
    state, action, context = question()
    turned = context + torch.tensor([0.0, 2 * torch.pi], dtype=F64)
    one, other = (model.posterior(state, action, context=c) for c in (context, turned))
    torch.testing.assert_close(one.mean, other.mean)
    with pytest.raises(bwm.DataError, match="context"):
        model.posterior(state, action)


def test_noise_can_be_replaced_and_worlds_reweighted(model):
    state, action, context = question()
    worlds = model.draw(3, generator=seeded(2))
    silent = worlds.replace(process_noise=0.0)
    before, after = (w.transition(w.start(state), action, context) for w in (worlds, silent))
    assert torch.equal(before.mean, after.mean)
    assert float(after.variance.max()) == 0
    heavier = worlds.reweight(torch.tensor([0.0, 1.0, 2.0]))
    assert type(heavier) is type(worlds)
    assert heavier.weight.argmax() == 2


class Clocked(bwm.Structure):
    """A mean that knows the step: x grows by the step's index."""

    @property
    def schema(self):
        return bwm.Schema(state=[bwm.Variable("x")], time_step=0.1)

    def parameters(self):
        return {}

    def transition(self, parameters, state, action, context, step):
        index = torch.as_tensor(step, dtype=state.dtype)
        return state + (index[..., None] if index.ndim else index), None


def test_a_mean_that_changes_with_time_gets_the_step():
    steps = torch.arange(20, dtype=F64)
    state = torch.cat((torch.zeros(1, dtype=F64), steps.cumsum(0)))[None, :, None]
    state = state + 0.01 * torch.randn(state.shape, generator=seeded(), dtype=F64)
    data = bwm.Trajectories(Clocked().schema, state=state)
    model = bwm.GaussianProcess(mean=Clocked(), restarts=1, features=64).fit(data, progress=False)
    assert float(model.hyper.noise) < 0.05
    worlds = model.draw(4, generator=seeded())
    here = worlds.start(torch.zeros(1))
    early, late = (worlds.transition(here, torch.empty(0, dtype=F64), step=t).mean for t in (0, 7))
    torch.testing.assert_close(late - early, torch.full_like(early, 7.0))
    _, log_prob = worlds.smooth(data)
    # a step without its index would be off by up to 19, hundreds of standard deviations
    assert bool((log_prob > 20).all())


def test_fits_in_two_threads_are_right():
    models = [bwm.GaussianProcess(mean=DRIFT, restarts=1, features=64) for _ in range(3)]
    data = recordings()
    models[0].fit(data, progress=False)
    threads = [threading.Thread(target=m.fit, args=(data,), kwargs={"progress": False}) for m in models[1:]]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for m in models[1:]:
        assert all(
            torch.equal(a, b) for a, b in zip(*(n._residual.posterior.hyper for n in (m, models[0])), strict=True)
        )


def test_worlds_in_single_precision_are_the_same_functions(model):
    state, action, context = question()
    worlds = model.draw(5, generator=seeded(2))
    exact = worlds.transition(worlds.start(state), action, context).mean
    small = worlds.to(torch.float32)
    law = small.transition(small.start(state), action.float(), context.float())
    assert law.mean.dtype == torch.float32
    torch.testing.assert_close(law.mean.double(), exact, rtol=1e-3, atol=1e-3)
