import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Gaussian, Noise, Schema, StructureWorlds, Trajectories, Variable
from bayeswm.structures import FromFunction, Pendulum

F64 = torch.float64
XY = Schema(state=[Variable("x"), Variable("y")], action=[Variable("u")], time_step=1.0)


def worlds(noise: object = (0.1, 0.2), count: int = 3, **given: object) -> StructureWorlds:
    structure = FromFunction(
        lambda x, u, c, p: p["gain"] * x + u, schema=XY, parameters={"gain": torch.distributions.Uniform(0.5, 1.0)}
    )
    drawn = bwm.KnownDynamics(structure=structure, noise=noise).draw(count, generator=torch.Generator().manual_seed(0))
    return drawn.reweight(given["log_weight"]) if "log_weight" in given else drawn


def episode(n: int = 2, steps: int = 4) -> Trajectories:
    g = torch.Generator().manual_seed(1)
    return Trajectories(
        XY,
        state=torch.randn(n, steps + 1, 2, generator=g, dtype=F64),
        action=torch.randn(n, steps, 1, generator=g, dtype=F64),
    )


def test_step_is_the_transition_pushed() -> None:
    w = worlds()
    carry, action = w.start(torch.ones(4, 2)), torch.zeros(4, 1, dtype=F64)
    noise = torch.randn(3, 5, 4, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    moved = w.step(carry, action, noise=noise)
    assert moved.shape == (3, 5, 4, 2)
    torch.testing.assert_close(moved, w.transition(carry, action).push(noise))
    torch.testing.assert_close(w.transition(carry, action).abduct(moved), noise)
    assert w.state(carry) is carry


def test_a_markov_filter_observes_the_state_and_scores_by_the_law() -> None:
    w, data = worlds(), episode()
    carry = w.start(data.states()[:, 0])
    after, log_prob = w.filter(carry, data.action[:, 0], None, data.states()[:, 1])
    assert after.shape == (3, 1, 2, 2)
    torch.testing.assert_close(after[1, 0], data.states()[:, 1])
    torch.testing.assert_close(log_prob, w.transition(carry, data.action[:, 0]).log_prob(data.states()[:, 1]))
    assert float(w.measurement(after).variance.max()) == 0


def test_a_markov_filter_refuses_what_is_missing() -> None:
    w = worlds()
    carry, action = w.start(torch.zeros(2)), torch.zeros(1, dtype=F64)
    with pytest.raises(bwm.DataError, match="sensor noise"):
        w.filter(carry, action, None, torch.zeros(2), torch.tensor([True, False]))
    with pytest.raises(bwm.DataError, match="got NaN"):
        w.filter(carry, action, None, torch.tensor([0.0, float("nan")]))


def test_smooth_finds_the_noise_and_the_density_of_each_episode() -> None:
    w = worlds()
    whole = episode()
    ragged = Trajectories(
        XY, state=[whole.states()[0], whole.states()[1, :3]], action=[whole.action[0], whole.action[1, :2]]
    )
    noise, log_density = w.smooth(ragged)
    assert noise.initial is None
    assert noise.step is not None
    assert noise.step.shape == (3, 1, 2, 4, 2)
    assert bool(noise.step[:, :, 1, 2:].isnan().all())
    carry = w.start(ragged.states()[:, 0])
    total = torch.zeros(3, 1, 2, dtype=F64)
    for t in range(2):
        law = w.transition(carry, ragged.action[:, t])
        total = total + law.log_prob(ragged.states()[:, t + 1])
        carry = law.push(noise.step[..., t, :])
        torch.testing.assert_close(carry, ragged.states()[:, t + 1].expand_as(carry))
    torch.testing.assert_close(log_density[:, :, 1], total[:, :, 1])


def test_smooth_refuses_a_missing_state_even_the_first() -> None:
    for at in (0, 2):
        state = episode().states().clone()
        state[1, at, 0] = float("nan")
        data = Trajectories(XY, state=state, action=episode().action, allow_missing=True)
        with pytest.raises(bwm.DataError, match="measured"):
            worlds().smooth(data)


def test_log_likelihood_at_once_equals_filtering_step_by_step() -> None:
    w, data = worlds(), episode()
    carry, context = w.start(data.states()[:, 0]), torch.empty(2, 4, 0, dtype=F64)
    at_once = w.log_likelihood(carry, data.states()[:, 1:], data.action, context)
    one_by_one = super(bwm.MarkovWorlds, w).log_likelihood(carry, data.states()[:, 1:], data.action, context)
    assert at_once.shape == (3, 1, 2, 4)
    torch.testing.assert_close(at_once, one_by_one)


def test_a_start_from_history_is_its_last_state() -> None:
    w = worlds()
    whole = episode()
    ragged = Trajectories(
        XY, state=[whole.states()[0], whole.states()[1, :3]], action=[whole.action[0], whole.action[1, :2]]
    )
    begin = w.start(ragged)
    torch.testing.assert_close(begin[2, 0], torch.stack((whole.states()[0, 4], whole.states()[1, 2])))


def test_a_start_from_a_law() -> None:
    w, belief = worlds(), Gaussian(torch.zeros(1, 1, 2, dtype=torch.float32), torch.tensor([1.0, 0.0]), noisy=(0,))
    assert w.initial_noise_size(belief) == 1
    with pytest.raises(bwm.SpecError, match=r"noise\.initial"):
        w.start(belief)
    begin = w.start(belief, noise=Noise(initial=torch.ones(3, 5, 1)))
    assert begin.shape == (3, 5, 2)
    assert begin.dtype == F64
    assert w.start(Gaussian(torch.ones(1, 1, 2))).shape == (3, 1, 2)


def test_the_law_of_the_state_in_a_carry_starts_there_again() -> None:
    w = worlds()
    carry = w.start(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    law = w.state_law(carry)
    assert w.initial_noise_size(law) == 0
    torch.testing.assert_close(w.start(law), carry)


def test_replace_sets_a_scalar_or_one_value_a_world() -> None:
    w = worlds()
    assert w.replace(gain=0.7).parameters["gain"].tolist() == [0.7] * 3
    assert w.replace(gain=torch.tensor([0.1, 0.2, 0.3])).parameters["gain"][1] == pytest.approx(0.2)
    assert float(w.parameters["gain"].std()) > 0  # the original is as it was
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'gain'"):
        w.replace(gian=1.0)
    with pytest.raises(bwm.SpecError, match=r"gain: expected a shape that fits \(3,\), got \(2,\)"):
        w.replace(gain=torch.zeros(2))


def test_noise_that_is_set_later_is_not_dropped() -> None:
    """A system without noise in a column gets it by replace: it has a coordinate then, and the particles spread."""
    still = worlds(noise=0.0)
    assert still.noise_size == 0
    noisy = still.replace(process_noise=torch.tensor([0.0, 0.5]))
    assert noisy.noise_size == 1
    r = bwm.rollout(noisy, torch.zeros(2), torch.zeros(1, 1), particles=400, generator=torch.Generator().manual_seed(0))
    sample = r.particles[..., 0, 1].var()
    assert float(sample) == pytest.approx(float(r.aleatoric_variance[0, 1]), rel=5 * (2 / 1200) ** 0.5)
    assert noisy[[0, 1]].noise_size == 1


def test_weights_are_normalised_and_checked() -> None:
    w = worlds(log_weight=torch.tensor([1.0, 2.0, 3.0]))
    assert float(w.weight.sum()) == pytest.approx(1.0)
    assert float(w.log_weight[2] - w.log_weight[0]) == pytest.approx(2.0)
    with pytest.raises(bwm.SpecError, match=r"shape \(3,\)"):
        w.reweight(torch.zeros(2))
    with pytest.raises(bwm.SpecError, match="finite log weight"):
        w.reweight(torch.full((3,), float("-inf")))


def test_some_worlds() -> None:
    w = worlds(log_weight=torch.tensor([1.0, 2.0, 3.0]))
    for index in (1, slice(1, 3), [0, 2], torch.tensor([True, False, True]), torch.tensor([2, 2])):
        part = w[index]
        assert len(part) == len(part.parameters["gain"])
        assert float(part.weight.sum()) == pytest.approx(1.0)
    assert w[[0, 2]].parameters["gain"].tolist() == w.parameters["gain"][[0, 2]].tolist()
    whole = w.reweight(w.log_weight, exhaustive=True)
    assert whole[[2, 0, 1]].exhaustive
    assert not whole[:2].exhaustive
    assert not whole[[0, 0, 1]].exhaustive
    with pytest.raises(bwm.SpecError, match="at least one world"):
        w[[]]
    assert repr(w) == "StructureWorlds(3 worlds (draws), state=(x, y))"


def test_worlds_need_something_that_counts_them() -> None:
    structure = FromFunction(lambda x, u: x, schema=XY)
    with pytest.raises(bwm.SpecError, match="how many worlds"):
        StructureWorlds(structure, XY, {}, exhaustive=True)


def test_swapped_columns_are_refused_wherever_data_meet_a_model():
    model = bwm.KnownDynamics(structure=Pendulum(), noise=0.1)
    other = bwm.Schema(
        state=[bwm.Variable("velocity"), bwm.Variable("angle", kind="angle")],
        action=[bwm.Variable("torque")],
        time_step=0.05,
    )
    data = bwm.Trajectories(other, state=torch.zeros(1, 4, 2), action=torch.zeros(1, 3, 1))
    g = torch.Generator().manual_seed(0)
    calls = (
        lambda: model.fit(data),
        lambda: model.draw(1).smooth(data),
        lambda: bwm.rollout(model, data, torch.zeros(1, 3, 1), generator=g),
        lambda: bwm.diagnostics.calibration(model, data, horizon=2),
    )
    for call in calls:
        with pytest.raises(bwm.SpecError, match="expected state"):
            call()


def test_a_structure_that_returns_something_else_is_refused():
    schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], time_step=0.1)

    def predictive(fn):
        model = bwm.KnownDynamics(structure=bwm.structures.FromFunction(fn, schema=schema, name="own"))
        return model.predictive(torch.ones(3, 2), torch.zeros(0))

    with pytest.raises(bwm.SpecError, match=r"own: expected the mean .* of shape \(\*batch, 2\), got \(3, 1\)"):
        predictive(lambda x, u: x[..., :1])
    with pytest.raises(bwm.SpecError, match="standard deviations >= 0"):
        predictive(lambda x, u: (x, -x))
    with pytest.raises(bwm.DataError, match="first in world 0, batch"):
        predictive(lambda x, u: x / 0.0)


def test_worlds_move_to_another_number_format():
    worlds = bwm.KnownDynamics(structure=Pendulum(), noise=0.1).draw(1)
    single = worlds.to(torch.float32)
    assert (worlds.dtype, single.dtype) == (torch.float64, torch.float32)
    r = bwm.rollout(single, torch.zeros(2), torch.zeros(3, 1), generator=torch.Generator().manual_seed(0))
    assert r.particles.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_worlds_move_to_another_device():
    worlds = bwm.KnownDynamics(structure=Pendulum(), noise=0.1).draw(1).to("cuda")
    r = bwm.rollout(worlds, torch.zeros(2), torch.zeros(3, 1), generator=torch.Generator("cuda").manual_seed(0))
    assert r.mean.device.type == "cuda"


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan"), float("inf")])
def test_parameters_are_not_replaced_by_nonsense(value):
    with pytest.raises(bwm.SpecError, match=r"mass: expected a finite value|expected mass > 0"):
        bwm.KnownDynamics(structure=Pendulum()).draw(1).replace(mass=value)


def test_the_beginning_of_measured_episodes_is_their_first_state() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    data = bwm.Trajectories(model.schema, state=torch.rand(3, 4, 2), action=torch.zeros(3, 3, 1))
    law = model.draw(1).beginning(data)
    assert law.noise_size == 0
    torch.testing.assert_close(law.mean[0, 0], data.states()[:, 0].double())


def test_known_states_need_no_moments_of_laws() -> None:
    class Costly(bwm.Gaussian):
        @property
        def mean(self) -> torch.Tensor:
            raise AssertionError

    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    worlds = model.draw(1)
    worlds.law = lambda mean, scale, parameters, inputs: Costly(mean, scale)
    data = bwm.Trajectories(model.schema, state=torch.rand(3, 4, 2), action=torch.zeros(3, 3, 1))
    noise, log_density = worlds.smooth(data)
    expected = model.draw(1).smooth(data)
    torch.testing.assert_close(noise.step, expected[0].step)
    torch.testing.assert_close(log_density, expected[1])
