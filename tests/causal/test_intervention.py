import numpy as np
import pytest
import torch
from torch.distributions import Normal, Poisson

import bayeswm as bwm
from bayeswm.causal import clamp, do, shift


def test_by_keyword_and_by_mapping() -> None:
    assert repr(do(torque=1.0)) == repr(do({"torque": 1.0})) == "do(torque=1.0)"
    assert bwm.do is do
    both = do({"noise.speed": 0.0}, torque=[1.0, 2.0], steps=slice(3, 5))
    assert [a.name for a in both.assignments] == ["noise.speed", "torque"]


def test_values_of_sequences_by_step() -> None:
    (one,) = do({"a": [10.0, 20.0, 30.0]}, steps=slice(1, 6, 2)).assignments
    assert [one.active(t) for t in range(7)] == [False, True, False, True, False, True, False]
    assert [float(one.values(t)) for t in (1, 3, 5)] == [10.0, 20.0, 30.0]
    (rows,) = do(a=np.arange(6.0).reshape(2, 3)).assignments
    assert rows.values(1).tolist() == [1.0, 4.0]
    assert rows.values(torch.tensor([0, 2])).tolist() == [[0.0, 2.0], [3.0, 5.0]]


WRONG = [
    (lambda: do(), "got nothing"),
    (lambda: do({"a": 1.0}, a=2.0), "once"),
    (lambda: do(a=1.0, steps=-1), "steps="),
    (lambda: do(a=1.0, steps=slice(3, 3)), "steps="),
    (lambda: do(a=1.0, steps=slice(-3, None)), "steps="),
    (lambda: do(a=1.0, steps=True), "steps="),
    (lambda: do(a=float("nan")), "finite"),
    (lambda: do(a="fast"), "expected a number"),
    (lambda: do(a=[1.0, 2.0], steps=slice(0, 3)), "3 value"),
    (lambda: do(a=[1.0, 2.0], steps=2), "1 value"),
    (lambda: do(a=Normal(torch.zeros(2), 1.0)), "one number"),
    (lambda: do(a=Poisson(1.0)), "icdf"),
    (lambda: clamp(), "low="),
    (lambda: clamp(1.0, 0.0), "low <= high"),
]


@pytest.mark.parametrize(("wrong", "match"), WRONG)
def test_what_makes_no_sense(wrong: object, match: str) -> None:
    with pytest.raises(bwm.SpecError, match=match):
        wrong()  # pyright: ignore[reportCallIssue]


def test_changes() -> None:
    x = torch.tensor([-1.0, 0.5, 3.0])
    assert shift(0.5).apply(x).tolist() == [-0.5, 1.0, 3.5]
    assert clamp(0.0, 1.0).apply(x).tolist() == [0.0, 0.5, 1.0]
    assert clamp(high=1.0).apply(x).tolist() == [-1.0, 0.5, 1.0]


def test_steps_beyond_the_horizon() -> None:
    for one in (do(a=1.0, steps=3), do(a=1.0, steps=slice(1, 4)), do(a=[1.0] * 4)):
        one.assignments[0].check_horizon(3)
        with pytest.raises(bwm.SpecError, match=r"within 0\.\.2"):
            one.assignments[0].check_horizon(2)
    do(a=1.0, steps=slice(1, None)).assignments[0].check_horizon(1)
