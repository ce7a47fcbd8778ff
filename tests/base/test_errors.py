"""The tree of errors."""

import pytest

from bayeswm.base import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.DataError, ValueError),
        (errors.SpecError, ValueError),
        (errors.FitError, RuntimeError),
        (errors.CheckpointError, OSError),
        (errors.NotInvertible, RuntimeError),
        (errors.UnknownVariableError, KeyError),
    ],
)
def test_one_tree(error, builtin):
    assert issubclass(error, errors.BayeswmError)
    assert issubclass(error, builtin)


def test_warnings_have_their_own_tree():
    found = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Warning)]
    assert len(found) == 7
    assert all(issubclass(v, errors.BayeswmWarning) and issubclass(v, UserWarning) for v in found)


def test_unknown_name_suggests_the_closest():
    error = errors.UnknownVariableError.of("angel", ["angle", "velocity"])
    assert str(error) == "unknown variable 'angel'; did you mean 'angle'? Known: angle, velocity."


def test_unknown_name_without_a_close_one():
    assert str(errors.UnknownVariableError.of("q", ["angle"])) == "unknown variable 'q'. Known: angle."
    assert str(errors.UnknownVariableError.of("q", [])) == "unknown variable 'q'. Known: none."
    assert str(errors.UnknownVariableError()) == ""


def test_suggestions_do_not_mind_capitals():
    assert "did you mean 'Torque'" in str(errors.UnknownVariableError.of("torque", ["Torque", "angle"]))
    assert "did you mean 'f'" in str(errors.UnknownVariableError.of("F", ["x", "f"]))
