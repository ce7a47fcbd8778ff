"""The multilayer perceptron as a structure: its loss, noise, scales, bounds and angles."""

import math
import warnings

import numpy as np
import pytest
import torch

from bayeswm import KnownDynamics, Schema, Variable
from bayeswm.base.errors import DataWarning, SpecError
from bayeswm.base.trajectories import Transitions
from bayeswm.structures import MLP
from bayeswm.structures.mlp import nll_gradient_, noise_variance
from bayeswm.structures.networks import evaluate, layers, parameter_count
from tests.statistical.checks import BUDGET, mean_p

SCHEMA = Schema(
    state=[Variable("angle", kind="angle"), Variable("speed", bounds=(-8.0, 8.0))],
    action=[Variable("torque")],
    context=[Variable("mass")],
    time_step=0.05,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def network(worlds=3, *, schema=SCHEMA, hidden=(9, 8), dtype=torch.float64):
    structure = MLP(hidden=hidden, schema=schema)
    parameters = structure.initial(worlds, generator(), dtype)
    parameters["network"] = torch.randn(parameters["network"].shape, generator=generator(1), dtype=dtype)
    return structure, parameters


def transitions(n, *, schema=SCHEMA):
    state, following = normal(n, schema.state.size), normal(n, schema.state.size, seed=1)
    index = torch.arange(n)
    others = normal(n, schema.action.size, seed=2), normal(n, schema.context.size, seed=3)
    return Transitions(state, *others, following, torch.zeros_like(index), index)


def inputs(worlds, *batch):
    return normal(worlds, 1, *batch, 2), normal(worlds, 1, *batch, 1, seed=1), normal(worlds, 1, *batch, 1, seed=2)


# --- loss ---------------------------------------------------------------------------------------------------------


class PassedClip(torch.autograd.Function):
    """A clip whose gradient is that of the identity."""

    @staticmethod
    def forward(ctx, mean, low, high):
        return mean.clamp(low, high)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None


@pytest.mark.parametrize("prior", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("bounded", [False, True])
def test_gradient_of_the_loss_is_that_of_autograd(prior, bounded):
    out, target = 3 * normal(2, 5, 6), normal(2, 5, 3, seed=1)
    bounds = (-0.5 + 0.1 * normal(2, 5, 3, seed=2), 0.5 + 0.1 * normal(2, 5, 3, seed=3)) if bounded else None
    leaf = out.clone().requires_grad_()
    mean, raw = leaf.chunk(2, -1)
    if bounds is not None:
        mean = PassedClip.apply(mean, *bounds)
    variance = noise_variance(raw)
    row = torch.distributions.Normal(mean, variance.sqrt()).log_prob(target) + 0.5 * math.log(2 * math.pi)
    pseudo = -0.5 * (0.01 / variance + variance.log())
    expected = -(row + prior * pseudo).mean((1, 2))
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    loss = nll_gradient_(out, target, prior, bounds)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out, gradient, rtol=1e-10, atol=1e-13)


def test_objective_gradient_is_that_of_its_log_density():
    schema = Schema(state=[Variable("x"), Variable("y")], action=[Variable("u")], time_step=0.1)
    structure, parameters = network(schema=schema)
    data = transitions(40, schema=schema)
    parameters = structure.standardise(parameters, data)
    objective = structure.objective(parameters, data)
    objective.prior = 0.0
    rows = torch.randint(40, (3, 7), generator=generator())
    loss, gradients = objective.gradient(rows)

    objective.flat.requires_grad_()
    # log_prob is in the units of the data and per row; the loss is standardised, per value and without the constant
    per_row = objective.log_prob(rows) + objective.log_scale + math.log(2 * math.pi)
    expected = -per_row.mean(1) / 2
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-11, atol=1e-11)
    (by_flat,) = torch.autograd.grad(expected.sum(), objective.flat)
    torch.testing.assert_close(gradients["network"], by_flat, rtol=1e-10, atol=1e-12)


def test_log_density_of_the_objective_is_that_of_the_law():
    structure, parameters = network()
    data = transitions(30)
    parameters = structure.standardise(parameters, data)
    found = structure.objective(parameters, data).log_prob(torch.arange(30))
    mean, scale = structure.batched(
        parameters, *(v.expand(3, 1, *v.shape) for v in (data.state, data.action, data.context)), 0
    )
    difference = SCHEMA.state.difference(data.next_state, data.state) - (mean[:, 0] - data.state)
    expected = torch.distributions.Normal(0.0, scale[:, 0]).log_prob(difference).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


# --- noise --------------------------------------------------------------------------------------------------------


def test_noise_is_the_exponential_of_a_log_variance_bent_twice():
    raw = torch.linspace(-30, 30, 601, dtype=torch.float64)
    softplus = torch.nn.functional.softplus
    bent = 3.0 - softplus(3.0 - raw)
    floor = math.log(math.exp(-14.0))
    torch.testing.assert_close(noise_variance(raw).log(), floor + softplus(bent - floor), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("raw", [-100.0, -30.0, 0.0, 17.0, 30.0, 100.0])
def test_noise_and_loss_have_a_gradient_at_any_output(raw):
    value = torch.tensor([raw], dtype=torch.float64, requires_grad=True)
    variance = noise_variance(value)
    (by_raw,) = torch.autograd.grad(variance, value)
    assert 0 < float(by_raw) < math.inf
    assert math.exp(-14) <= float(variance.detach()) <= math.exp(3) * (1 + 1e-5)
    out = torch.tensor([[[0.0, raw]]], dtype=torch.float64)
    nll_gradient_(out, torch.full((1, 1, 1), 0.3, dtype=torch.float64), 0.0)
    gradient = float(out[0, 0, 1])
    # a variance of 0.09 is right: above it the output should fall, below it rise
    assert math.isfinite(gradient)
    assert math.copysign(1, gradient) == (1 if float(variance.detach()) > 0.09 else -1)
    assert gradient != 0


# --- scales -------------------------------------------------------------------------------------------------------


def test_scales_of_huge_values_are_computed_in_float64():
    schema = Schema(state=[Variable("x")], action=[Variable("u")], time_step=0.1)
    structure, parameters = network(schema=schema, dtype=torch.float32)
    spread = normal(1000, 1)
    index = torch.arange(1000)
    state = 1e15 + 1e10 * spread
    data = Transitions(
        state,
        normal(1000, 1, seed=1),
        torch.empty(1000, 0),
        state + 1e3 * spread.sign(),
        torch.zeros_like(index),
        index,
    )
    found = structure.standardise(parameters, data)
    assert found["input_scale"][:, 0].tolist() == pytest.approx([float(state.std(correction=0))] * 3, rel=1e-6)
    assert found["input_mean"][:, 0].tolist() == pytest.approx([1e15] * 3, rel=1e-7)
    assert found["change_scale"][:, 0].tolist() == pytest.approx([1e3] * 3, rel=0.01)
    assert found["input_scale"].dtype == torch.float32
    objective = structure.objective(found, data)
    assert float(objective.y.std()) == pytest.approx(1.0, rel=0.01)


def test_constant_columns_keep_scale_one_and_are_named():
    structure, parameters = network()
    data = transitions(20)._replace(action=torch.full((20, 1), 0.7, dtype=torch.float64))
    data = data._replace(next_state=data.state + torch.tensor([0.1, 0.0], dtype=torch.float64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = structure.standardise(parameters, data)
    assert {w.category for w in caught} == {DataWarning}
    said = " | ".join(str(w.message) for w in caught)
    assert "constant input column(s) torque" in said
    assert "constant change column(s) angle, speed" in said
    assert found["input_scale"][0, 3].item() == 1.0
    assert found["input_scale"][0, 0].item() == pytest.approx(float(data.state[:, 0].sin().std(correction=0)))
    assert found["change_scale"].tolist() == [[1.0, 1.0]] * 3
    assert structure.objective(found, data).gradient(torch.zeros(3, 1, dtype=torch.int64))[0].isfinite().all()


def test_one_sample_gives_unit_scales_without_a_warning():
    structure, parameters = network()
    found = structure.standardise(parameters, transitions(1))
    assert torch.equal(found["input_scale"], torch.ones_like(found["input_scale"]))


# --- one world, many worlds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("worlds", [1, 2, 5])
@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3)])
def test_each_world_alone_equals_all_at_once(worlds, batch):
    structure, parameters = network(worlds)
    parameters["input_mean"] += normal(*parameters["input_mean"].shape)
    parameters["change_scale"] *= 0.3
    state, action, context = inputs(worlds, *batch)
    mean, scale = structure.batched(parameters, state, action, context, 0)
    assert mean.shape == scale.shape == (worlds, 1, *batch, 2)
    for w in range(worlds):
        own = {k: v[w] for k, v in parameters.items()}
        for all_worlds, one in zip(
            (mean, scale), structure.transition(own, state[w, 0], action[w, 0], context[w, 0], 0), strict=True
        ):
            torch.testing.assert_close(all_worlds[w, 0], one, rtol=1e-12, atol=1e-12)


def test_states_may_be_shared_by_all_worlds():
    structure, parameters = network(3)
    state, action, context = (v[:1] for v in inputs(3, 4))
    found = structure.batched(parameters, state, action, context, 0)
    expected = structure.batched(parameters, *(v.expand(3, *v.shape[1:]) for v in (state, action, context)), 0)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_vmap_over_worlds_equals_the_batched_path():
    structure, parameters = network()
    state, action, context = (v[:, 0] for v in inputs(3, 4))
    found = torch.func.vmap(lambda p, *v: structure.transition(p, *v, 0))(parameters, state, action, context)
    expected = structure.batched(parameters, *(v[:, None] for v in (state, action, context)), 0)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b[:, 0], rtol=1e-12, atol=1e-12)


def test_jacobian_by_a_functional_transform_is_that_of_autograd():
    structure, parameters = network(1)
    own = {k: v[0] for k, v in parameters.items()}
    state, action, context = normal(2), normal(1, seed=1), normal(1, seed=2)

    def mean(state):
        return structure.transition(own, state, action, context, 0)[0]

    expected = torch.autograd.functional.jacobian(mean, state)
    torch.testing.assert_close(torch.func.jacrev(mean)(state), expected, rtol=1e-11, atol=1e-11)


def test_actions_and_context_are_shared_by_broadcasting():
    structure, parameters = network()
    state, action, context = inputs(3, 4)
    mean, scale = structure.batched(parameters, state, action[:1, 0], context[0, 0], 0)
    shared = action[:1].expand(3, -1, -1, -1), context[:1].expand(3, -1, -1, -1)
    for a, b in zip((mean, scale), structure.batched(parameters, state, *shared, 0), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_context_changes_the_answer():
    structure, parameters = network()
    state, action, context = inputs(3, 4)
    here, there = (structure.batched(parameters, state, action, c, 0)[0] for c in (context, context + 1))
    assert float((here - there)[..., 0].abs().min()) > 1e-6


# --- angles and bounds --------------------------------------------------------------------------------------------


def test_a_full_turn_changes_nothing_but_the_lift():
    structure, parameters = network()
    state, action, context = inputs(3, 4)
    turn = torch.tensor([2 * math.pi, 0.0], dtype=torch.float64)
    mean, scale = structure.batched(parameters, state, action, context, 0)
    turned, same = structure.batched(parameters, state + turn, action, context, 0)
    torch.testing.assert_close(turned - turn, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same, scale, rtol=1e-12, atol=1e-12)


def test_mean_stays_inside_the_bounds_of_its_variable_only():
    structure, parameters = network()
    parameters["change_scale"] = torch.full_like(parameters["change_scale"], 100.0)
    mean, _ = structure.batched(parameters, *inputs(3, 200), 0)
    angle, speed = mean.unbind(-1)
    assert float(speed.abs().max()) == 8.0
    assert float(angle.abs().max()) > 8.0


# --- prior --------------------------------------------------------------------------------------------------------


def test_prior_scales_of_weights_and_biases():
    law = MLP(hidden=(9, 8), schema=SCHEMA, prior_scale=0.5).parameters()["network"].value
    assert law.batch_shape == (parameter_count((5, 9, 8, 4)),)
    assert not law.mean.any()
    for layer, inputs in zip(layers(law.stddev[None], (5, 9, 8, 4)), (5, 9, 8), strict=True):
        expected = torch.full_like(layer[0], 0.5 / math.sqrt(inputs))
        expected[-1] = 0.5
        torch.testing.assert_close(layer[0], expected, rtol=1e-15, atol=0)


@pytest.mark.statistical
@pytest.mark.parametrize("width", [3, 50])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_outputs_before_data_have_the_variance_of_the_prior_at_any_width(width, scale):
    schema = Schema(state=[Variable("x")], action=[Variable("u")], time_step=0.1)
    structure = MLP(hidden=(width,), schema=schema, prior_scale=scale)
    drawn = structure.sample(4000, generator(), torch.float64)["network"]
    x = torch.tensor([0.7, -1.3], dtype=torch.float64)
    out = evaluate(drawn, x.expand(4000, 1, 2), structure.sizes)[:, 0]
    # a hidden sum is N(0, s^2 (|x|^2 / 2 + 1)); an output has variance s^2 (E silu^2 + 1), by Gauss-Legendre to 1e-12
    spread = scale * math.sqrt(float(x.square().sum()) / 2 + 1)
    z, weight = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(200))
    density = torch.distributions.Normal(0.0, 1.0).log_prob(10 * z).exp()
    silu = torch.nn.functional.silu(10 * spread * z).square()
    expected = scale**2 * (float((10 * weight * density * silu).sum()) + 1)
    assert mean_p(out, 0.0) > BUDGET
    assert mean_p(out.square(), expected) > BUDGET


def test_a_training_does_not_begin_with_draws_of_the_prior():
    structure = MLP(hidden=(9, 8), schema=SCHEMA)
    start = structure.initial(2, generator(), torch.float64)
    assert all(not layer[:, -1].any() for layer in layers(start["network"], structure.sizes))  # biases
    worlds = KnownDynamics(structure=structure).draw(2, generator=generator())
    assert all(layer[:, -1].all() for layer in layers(worlds.parameters["network"], structure.sizes))
    wide = MLP(hidden=(9, 8), schema=SCHEMA, prior_scale=7.0).initial(2, generator(), torch.float64)
    assert all(torch.equal(start[k], wide[k]) for k in start)


def test_prior_scale_is_kept():
    structure = MLP(hidden=(4,), prior_scale=0.3)
    assert structure.bind(SCHEMA).prior_scale == 0.3
    assert MLP.from_config(structure.config()).prior_scale == 0.3
    old = {k: v for k, v in structure.config().items() if k != "prior_scale"}
    assert MLP.from_config(old).prior_scale == 1.0  # files from before there was a prior
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(SpecError, match="prior_scale > 0"):
            MLP(prior_scale=wrong)


# --- files and specifications -------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_configuration_makes_the_same_network_again(schema):
    first = MLP(hidden=(5, 6), schema=schema)
    again = MLP.from_config(first.config())
    assert again.config() == first.config()
    assert again.hidden == (5, 6)
    if schema is not None:
        assert again.sizes == first.sizes == (2 + 1 + 1 + 1, 5, 6, 4)


def test_initial_networks_follow_the_generator():
    structure = MLP(hidden=(4,), schema=SCHEMA)
    one, same, other = (structure.initial(2, generator(seed), torch.float64)["network"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    with pytest.raises(SpecError, match="generator"):
        structure.initial(2, None, torch.float64)


@pytest.mark.parametrize("hidden", [(), (0,), (5, -1)])
def test_layers_without_units_are_refused(hidden):
    with pytest.raises(SpecError, match="at least 1 unit"):
        MLP(hidden=hidden)


@pytest.mark.parametrize("bind", [False, True])
def test_state_of_another_kind_is_refused(bind):
    schema = Schema(state=[Variable("attitude", kind="rotation")], action=[Variable("u")], time_step=0.1)
    with pytest.raises(SpecError, match="real or angle"):
        MLP().bind(schema) if bind else MLP(schema=schema)


def test_network_without_variables_says_so():
    with pytest.raises(SpecError, match="bound to variables"):
        MLP().parameters()


def test_layers_tell_inputs_and_outputs_in_order():
    structure = MLP(hidden=(9, 8), schema=SCHEMA)
    assert structure.layers() == {"network": ((5, 9), (9, 8), (8, 4))}
    count = sum((i + 1) * o for i, o in structure.layers()["network"])
    assert count == parameter_count(structure.sizes)
