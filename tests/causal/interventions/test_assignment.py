import numpy as np
import pytest
import torch
from torch.distributions import Exponential, Normal

import bayeswm as bwm
from bayeswm.causal import do


def test_values_of_sequences_by_step() -> None:
    (one,) = do({"a": [10.0, 20.0, 30.0]}, steps=slice(1, 6, 2)).assignments
    assert [one.active(t) for t in range(7)] == [False, True, False, True, False, True, False]
    assert [float(one.values(t)) for t in (1, 3, 5)] == [10.0, 20.0, 30.0]
    (rows,) = do(a=np.arange(6.0).reshape(2, 3)).assignments
    assert rows.values(1).tolist() == [1.0, 4.0]
    assert rows.values(torch.tensor([0, 2])).tolist() == [[0.0, 2.0], [3.0, 5.0]]


def test_steps_beyond_the_horizon() -> None:
    for one in (do(a=1.0, steps=3), do(a=1.0, steps=slice(1, 4)), do(a=[1.0] * 4)):
        one.assignments[0].check_horizon(3)
        with pytest.raises(bwm.SpecError, match=r"within 0\.\.2"):
            one.assignments[0].check_horizon(2)
    do(a=1.0, steps=slice(1, None)).assignments[0].check_horizon(1)


def test_several_steps_at_once_are_all_or_none() -> None:
    (one,) = do(a=1.0, steps=slice(2, 4)).assignments
    assert one.active(torch.tensor([2, 3]))
    assert not one.active(torch.tensor([0, 1]))
    with pytest.raises(bwm.SpecError, match="one step at a time"):
        one.active(torch.tensor([1, 2]))


def test_draws_follow_the_quantile_function() -> None:
    noise = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    normal, other = (do(a=law).assignments[0] for law in (Normal(1.0, 2.0), Exponential(1.0)))
    assert normal.drawn(noise).tolist() == [-1.0, 1.0, 5.0]
    torch.testing.assert_close(other.drawn(noise), -torch.special.ndtr(-noise).log())
