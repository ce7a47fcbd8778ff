"""Kinds: changes lead where they say, whatever the kind."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from bayeswm.base.errors import SpecError
from bayeswm.base.kinds import TURN, Angle, Categorical, Real, Rotation, categorical, kind_of, wrap

numbers = st.floats(-50, 50)


def values(kind, generator, n=30):
    if isinstance(kind, Rotation):
        return torch.nn.functional.normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64), dim=-1)
    if isinstance(kind, Categorical):
        return torch.randint(kind.n, (n, 1), generator=generator).double()
    return 20 * torch.randn(n, 1, generator=generator, dtype=torch.float64)


def same(kind, a, b):
    """Distance between values that a kind takes for different."""
    if isinstance(kind, Angle):
        return wrap(a - b).abs()
    if isinstance(kind, Rotation):
        return 1 - (a * b).sum(-1).abs()
    return (a - b).abs()


KINDS = [Real(), Angle(), Rotation(), categorical(4)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
@given(seed=st.integers(0, 10**6))
def test_adding_the_difference_arrives(kind, seed):
    generator = torch.Generator().manual_seed(seed)
    old, new = values(kind, generator), values(kind, generator)
    change = kind.difference(new, old)
    assert change.shape == (30, kind.tangent_size)
    arrived = kind.add(old, change)
    assert arrived.shape == (30, kind.size)
    assert float(same(kind, arrived, new).max()) < 1e-12


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_no_change_from_a_value_to_itself(kind):
    value = values(kind, torch.Generator().manual_seed(0))
    zero = kind.difference(value, value)
    assert float(zero.abs().max()) < 1e-12
    assert float(same(kind, kind.add(value, torch.zeros_like(zero)), value).max()) < 1e-12


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_mean_of_equal_values_is_the_value(kind):
    value = values(kind, torch.Generator().manual_seed(0))
    mean = kind.mean(value.expand(5, *value.shape), torch.full((5,), 0.2, dtype=torch.float64))
    assert float(same(kind, mean, value).max()) < 1e-12


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_embedding_has_its_size_and_no_jumps(kind):
    value = values(kind, torch.Generator().manual_seed(0))
    assert kind.embed(value).shape == (30, kind.embedding_size)
    if isinstance(kind, Angle):
        torch.testing.assert_close(kind.embed(value), kind.embed(value + TURN))
    if isinstance(kind, Rotation):
        torch.testing.assert_close(kind.embed(value), kind.embed(-value))


@given(angle=st.floats(-1e4, 1e4))
def test_wrap_changes_by_whole_turns_only(angle):
    wrapped = wrap(torch.tensor(angle, dtype=torch.float64))
    turns = (angle - float(wrapped)) / TURN
    assert abs(float(wrapped)) <= math.pi + 1e-9
    assert abs(turns - round(turns)) < 1e-9


@given(angle=st.floats(-3.14159, 3.14159))
def test_wrap_leaves_what_is_inside_bit_for_bit(angle):
    assert float(wrap(torch.tensor(angle, dtype=torch.float64))) == angle


def test_angle_difference_takes_the_short_way():
    change = Angle().difference(torch.tensor([-3.1]), torch.tensor([3.1]))
    torch.testing.assert_close(change, torch.tensor([TURN - 6.2]))


def test_mean_of_angles_is_the_mean_direction():
    mean = Angle().mean(torch.tensor([[3.1], [-3.1]]), torch.tensor([0.5, 0.5]))
    assert float(wrap(mean - math.pi).abs()) < 1e-6


def test_rotation_change_is_in_the_body_frame():
    half = math.sqrt(0.5)
    turned = torch.tensor([half, 0.0, 0.0, half])  # a quarter turn about z: the body's x axis points along y
    after = Rotation().add(turned, torch.tensor([0.3, 0.0, 0.0]))
    matrix = Rotation().embed(after).view(3, 3)
    torch.testing.assert_close(matrix[:, 0], torch.tensor([0.0, 1.0, 0.0]))  # its own x axis stays


def test_rotation_signs_mean_the_same():
    q = values(Rotation(), torch.Generator().manual_seed(0))
    assert float(Rotation().difference(-q, q).abs().max()) < 1e-12


@given(size=st.floats(0, 3.14))
def test_rotation_vector_of_any_length_returns(size):
    vector = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64) * size
    unit = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(Rotation().difference(Rotation().add(unit, vector), unit), vector, atol=1e-12, rtol=1e-9)


def test_rotation_gradient_at_no_change_is_finite():
    change = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    unit = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda c: Rotation().add(unit, c), change)
    torch.testing.assert_close(jacobian[0, 1:, 0], 0.5 * torch.eye(3, dtype=torch.float64))


def test_categorical_mean_is_the_most_likely_class():
    codes = torch.tensor([[0.0], [2.0], [2.0]])
    assert categorical(3).mean(codes, torch.full((3,), 1 / 3)).item() == 2
    assert categorical(3).mean(codes, torch.tensor([0.6, 0.2, 0.2])).item() == 0


@pytest.mark.parametrize("n", [1, 0, -2, 2.0, True, "3"])
def test_categorical_needs_two_classes(n):
    with pytest.raises(SpecError, match="n >= 2"):
        categorical(n)


def test_kind_by_name():
    assert kind_of("angle") == Angle()
    assert kind_of(categorical(3)) == categorical(3)
    with pytest.raises(SpecError, match="'rotation'"):
        kind_of("quaternion")
