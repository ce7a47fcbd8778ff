import pytest
import torch

import bayeswm as bwm
from bayeswm.causal import clamp, shift


def test_changes() -> None:
    x = torch.tensor([-1.0, 0.5, 3.0])
    assert shift(0.5).apply(x).tolist() == [-0.5, 1.0, 3.5]
    assert clamp(0.0, 1.0).apply(x).tolist() == [0.0, 0.5, 1.0]
    assert clamp(high=1.0).apply(x).tolist() == [-1.0, 0.5, 1.0]


def test_bounds_that_make_no_sense() -> None:
    with pytest.raises(bwm.SpecError, match="low="):
        clamp()
    with pytest.raises(bwm.SpecError, match="low <= high"):
        clamp(1.0, 0.0)
