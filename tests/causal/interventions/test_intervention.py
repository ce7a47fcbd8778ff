import pytest
import torch
from torch.distributions import Normal, Poisson

import bayeswm as bwm
from bayeswm.causal import do


def test_by_keyword_and_by_mapping() -> None:
    assert repr(do(torque=1.0)) == repr(do({"torque": 1.0})) == "do(torque=1.0)"
    assert bwm.do is do
    both = do({"noise.speed": 0.0}, torque=[1.0, 2.0], steps=slice(3, 5))
    assert [a.name for a in both.assignments] == ["noise.speed", "torque"]


WRONG = [
    (lambda: do(), "got nothing"),
    (lambda: do({"a": 1.0}, a=2.0), "once"),
    (lambda: do(a=1.0, steps=-1), "steps="),
    (lambda: do(a=1.0, steps=slice(3, 3)), "steps="),
    (lambda: do(a=1.0, steps=slice(-3, None)), "steps="),
    (lambda: do(a=1.0, steps=True), "steps="),
    (lambda: do(a=float("nan")), "finite"),
    (lambda: do(a="fast"), "expected a number"),
    (lambda: do(a="1"), "expected a number"),
    (lambda: do(a=lambda state: state[..., 0]), r"callable of \(state, step\), got one of \(state\)"),
    (lambda: do(a=1.0, when=lambda state: state[..., 0] > 0), r"when=: expected a callable of \(state, step\)"),
    (lambda: do(a=[1.0, 2.0], steps=slice(0, 3)), "3 value"),
    (lambda: do(a=[1.0, 2.0], steps=2), "1 value"),
    (lambda: do(a=Normal(torch.zeros(2), 1.0)), "one number"),
    (lambda: do(a=Poisson(1.0)), "icdf"),
]


@pytest.mark.parametrize(("wrong", "match"), WRONG)
def test_what_makes_no_sense(wrong: object, match: str) -> None:
    with pytest.raises(bwm.SpecError, match=match):
        wrong()  # pyright: ignore[reportCallIssue]
