import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.structures import FromFunction, Pendulum
from tests.hidden_models import HiddenModel, hidden_velocity_worlds

MODEL = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=0.01)


def test_one_step_equals_the_structure() -> None:
    state, action = torch.tensor([[0.3, 1.0], [2.0, -1.0]]).double(), torch.tensor([[0.5], [-1.0]]).double()
    p = MODEL.predictive(state, action)
    parameters = {k: torch.as_tensor(v.value).double() for k, v in MODEL.structure.parameters().items()}
    mean, _ = MODEL.structure.transition(parameters, state, action, torch.empty(2, 0), 0)
    torch.testing.assert_close(p.mean[:, 0], mean)
    torch.testing.assert_close(p.variance, torch.full((2, 1, 2), 1e-4, dtype=torch.float64))
    torch.testing.assert_close(p.initial.expand(1, 1, 2, 2)[0, 0], state)


def test_state_and_action_broadcast() -> None:
    p = MODEL.predictive(torch.zeros(4, 1, 2), torch.zeros(3, 1))
    assert p.mean.shape == (4, 3, 1, 2)
    with pytest.raises(bwm.DataError, match=r"got \(4,\) and \(3,\)"):
        MODEL.predictive(torch.zeros(4, 2), torch.zeros(3, 1))


def test_measurement_of_a_measured_state_is_the_state() -> None:
    state, measured = (MODEL.predictive(torch.zeros(2), torch.zeros(1), of=of) for of in ("state", "measurement"))
    torch.testing.assert_close(state.mean, measured.mean)
    torch.testing.assert_close(state.log_prob(state.mean), measured.log_prob(state.mean))


def test_what_cannot_be_asked() -> None:
    zero, action = torch.zeros(2), torch.zeros(1)
    with pytest.raises(bwm.SpecError, match="'mean'"):
        MODEL.predictive(zero, action, of="mean")
    with pytest.raises(bwm.SpecError, match="neither"):
        MODEL.predictive(None, action)
    with pytest.raises(bwm.DataError, match=r"first at \(1,\), variable 'velocity'"):
        MODEL.predictive(torch.tensor([[0.0, 0.0], [0.0, float("nan")]]), action)
    with pytest.raises(bwm.DataError, match=r"action of shape \(\*batch, 1\) for \('torque',\), got \(2,\)"):
        MODEL.predictive(zero, zero)
    with pytest.raises(bwm.DataError, match="got none"):
        MODEL.predictive(zero, None)
    with pytest.raises(bwm.SpecError, match="noise must be drawn"):
        HiddenModel(hidden_velocity_worlds()).predictive(zero.double(), action, of="measurement")


def test_history_tells_where_a_system_is() -> None:
    data = bwm.Trajectories(MODEL.schema, state=[[[0.0, 0.0], [0.5, 1.0]]], action=[[[0.0]]])
    by_history = MODEL.predictive(None, torch.zeros(1), history=data)
    by_state = MODEL.predictive(torch.tensor([[0.5, 1.0]]), torch.zeros(1))
    torch.testing.assert_close(by_history.mean, by_state.mean)


def test_context_is_asked_for() -> None:
    schema = Schema(state=[Variable("x")], context=[Variable("wind")], time_step=1.0)
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u, c: x + c, schema=schema))
    with pytest.raises(bwm.DataError, match="context"):
        model.predictive(torch.zeros(1), torch.zeros(0))
    p = model.predictive(torch.zeros(3, 1), torch.zeros(0), context=torch.tensor([2.0]))
    assert p.mean[:, 0, 0].tolist() == [2.0] * 3


def test_number_formats_follow_the_model() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(), noise=0.1, dtype=torch.float32)
    p = model.predictive(torch.zeros(2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64))
    assert p.mean.dtype == torch.float32
    assert p.quantile(0.5).dtype == torch.float32


def test_families_say_what_they_cannot_do() -> None:
    model = HiddenModel(hidden_velocity_worlds())
    data = bwm.Trajectories(MODEL.schema, state=[[[0.0, 0.0], [0.5, 1.0]]], action=[[[0.0]]])
    assert model.condition(data, in_training=True) is model
    with pytest.raises(bwm.SpecError, match="cannot be conditioned"):
        model.condition(data)
    with pytest.raises(bwm.SpecError, match="cannot be saved"):
        model.save("nowhere")
    with pytest.raises(bwm.SpecError, match="cannot be loaded"):
        HiddenModel.from_state({}, {}, None)


def test_only_the_librarys_own_families_are_registered() -> None:
    assert bwm.DynamicsModel.registry["KnownDynamics"] is bwm.KnownDynamics
    assert "HiddenModel" not in bwm.DynamicsModel.registry
