import pytest

import bayeswm as bwm
from bayeswm.causal import Mechanism


def test_parents_are_the_arguments_by_default() -> None:
    assert Mechanism(lambda x, z: x + z).causes == ("x", "z")
    assert Mechanism(lambda: 0.0, noise=1.0).causes == ()
    assert Mechanism(lambda *parents: sum(parents), ("x", "y")).causes == ("x", "y")


def test_what_makes_no_sense() -> None:
    with pytest.raises(bwm.SpecError, match="parents="):
        Mechanism(lambda *parents: sum(parents))
    with pytest.raises(bwm.SpecError, match="2 argument"):
        Mechanism(lambda x: x, ("x", "y"))
    with pytest.raises(bwm.SpecError, match="sequence of names"):
        Mechanism(lambda x: x, "x")  # pyright: ignore[reportArgumentType]
    for noise in (-1.0, float("nan"), float("inf")):
        with pytest.raises(bwm.SpecError, match="noise >= 0"):
            Mechanism(lambda x: x, noise=noise)
