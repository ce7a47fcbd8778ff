"""One row of a batch of forecasts."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.plot.rows import chosen_row, common_start, one_record


def test_the_row_is_needed_only_among_several(predictive: bwm.Predictive) -> None:
    assert chosen_row(predictive, -1) == -1
    assert chosen_row(predictive[:1], None) == 0
    assert chosen_row(predictive[0], None) is None
    with pytest.raises(bwm.SpecError, match="choose one of 3"):
        chosen_row(predictive, None)


def test_the_record_is_that_of_the_row(predictive: bwm.Predictive) -> None:
    came = torch.arange(3.0)[:, None, None].expand(3, 8, 2)
    assert bool((one_record(predictive, came, 2) == 2).all())
    with pytest.raises(bwm.DataError, match=r"shape \(8, 2\), or \(9, 2\)"):
        one_record(predictive, came[:, :5], 2)


def test_starts_that_differ_are_none(predictive: bwm.Predictive) -> None:
    assert common_start(predictive[0], 0) == 1
    law = bwm.Gaussian(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    g = torch.Generator().manual_seed(0)
    assert common_start(bwm.rollout(model, law, torch.zeros(2, 1), generator=g), 0) is None
