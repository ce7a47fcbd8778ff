"""Inputs of a Gaussian process: names to columns, angles as sine and cosine or raw."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, Matern, Periodic
from bayeswm.models.gp_inputs import Inputs

F64 = torch.float64
SCHEMA = bwm.Schema(
    state=[bwm.Variable("angle", kind="angle"), bwm.Variable("speed")],
    action=[bwm.Variable("gear", kind=bwm.categorical(3)), bwm.Variable("torque")],
    context=[bwm.Variable("hour")],
    time_step=0.1,
)
FEATURES = ("sin angle", "cos angle", "speed", "gear 0", "gear 1", "gear 2", "torque", "hour")


def test_columns_are_features_then_what_periodic_kernels_take_raw():
    kernel = RBF() * Periodic(active="hour", period=24.0) + Matern(active=("torque", "angle")) + Periodic()
    inputs, bound = Inputs.bind(SCHEMA, kernel)
    assert inputs.names == (*FEATURES, "angle", "hour")
    assert [p.columns for p in bound.parameters(len(inputs.names)) if p.kind == "length"] == [
        *(tuple(range(8)), (9,), (6, 0, 1), (8,)),
    ]
    state, action = torch.tensor([[7.0, -2.0]], dtype=F64), torch.tensor([[2.0, 0.5]], dtype=F64)
    expected = [[math.sin(7.0), math.cos(7.0), -2.0, 0.0, 0.0, 1.0, 0.5, 30.0, 7.0, 30.0]]
    found = inputs(state, action, torch.tensor([30.0], dtype=F64))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=F64), rtol=0, atol=1e-12)


def test_indices_count_the_columns_of_state_action_and_context():
    inputs, bound = Inputs.bind(SCHEMA, RBF(active=(0, 3)) * Periodic(active=4, period=24.0))
    assert inputs.raw == (4,)
    assert [p.columns for p in bound.parameters(9)] == [(0, 1, 6), (8,)]


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (RBF(active="sped"), bwm.UnknownVariableError, "speed"),
        (RBF(active=5), bwm.SpecError, r"indices below 5 \(angle, speed, gear, torque, hour\), got 5"),
        (Periodic(active="gear"), bwm.SpecError, "real or angle inputs .* got gear"),
    ],
)
def test_inputs_that_do_not_exist_are_refused(kernel, error, message):
    with pytest.raises(error, match=message):
        Inputs.bind(SCHEMA, kernel)


def test_a_periodic_kernel_without_angles_needs_inputs():
    schema = bwm.Schema(state=[bwm.Variable("x")], time_step=0.1)
    with pytest.raises(bwm.SpecError, match=r"there is no angle: Periodic\(active=\.\.\., period=\.\.\.\)"):
        Inputs.bind(schema, RBF() + Periodic())
