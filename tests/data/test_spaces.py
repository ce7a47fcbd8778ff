"""Spaces as columns."""

import numpy as np
import pytest

from bayeswm.base.errors import SpecError
from bayeswm.base.kinds import categorical
from bayeswm.base.schema import Variable, Variables
from bayeswm.data.spaces import check_fits, flat_space

spaces = pytest.importorskip("gymnasium").spaces

SPACES = {
    "box": (spaces.Box(-1, 1, (2, 3)), (0,) * 6),
    "discrete": (spaces.Discrete(3, start=5), (3,)),
    "multidiscrete": (spaces.MultiDiscrete([2, 4]), (2, 4)),
    "multibinary": (spaces.MultiBinary(3), (2, 2, 2)),
}


@pytest.mark.parametrize("name", SPACES)
def test_rows_and_values_are_inverse(name):
    space, classes = SPACES[name]
    flat = flat_space(space, "action")
    assert flat.classes == classes
    space.seed(0)
    drawn = [space.sample() for _ in range(20)]
    rows = flat.rows(drawn)
    assert rows.shape == (20, len(classes))
    for column, n in enumerate(classes):
        if n:
            assert set(rows[:, column].tolist()) <= set(range(n))
    for value, again in zip(drawn, flat.values(rows), strict=True):
        assert np.array_equal(value, again)
        assert space.contains(again)


def test_spaces_without_columns_are_refused():
    with pytest.raises(SpecError, match=r"observation space, got Dict; .*FlattenObservation"):
        flat_space(spaces.Dict({"a": spaces.Discrete(2)}), "observation")


def test_sizes_are_both_said():
    flat = flat_space(spaces.Box(-1, 1, (3,)), "action")
    with pytest.raises(SpecError, match=r"the environment has 3 .*the schema 1 \(u\)"):
        check_fits(flat, Variables([Variable("u")]), "action")
    check_fits(flat, Variables([Variable(n) for n in "uvw"]), "action")


@pytest.mark.parametrize("kind", ["real", categorical(2), categorical(4)])
def test_discrete_columns_need_their_classes(kind):
    flat = flat_space(spaces.Discrete(3), "action")
    with pytest.raises(SpecError, match=r"categorical\(3\)"):
        check_fits(flat, Variables([Variable("u", kind=kind)]), "action")
    check_fits(flat, Variables([Variable("u", kind=categorical(3))]), "action")
