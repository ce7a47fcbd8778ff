import numpy as np
import pytest
import torch
import xarray as xr

import bayeswm as bwm
from bayeswm.causal.sensitivity.refits import judged, resampled, shuffled
from tests.causal.reference_models import line


def test_shuffling_keeps_steps_and_padding(generator: torch.Generator) -> None:
    log = bwm.Trajectories(line(), state=[[[0.0], [0.0], [0.0]], [[0.0], [0.0]]], action=[[[1.0], [2.0]], [[3.0]]])
    found = shuffled(log, generator)
    assert found.action[log.step_mask].flatten().sort().values.tolist() == [1.0, 2.0, 3.0]
    assert found.action.isnan().equal(log.action.isnan())


def test_whole_recordings_areresampled(generator: torch.Generator) -> None:
    log = bwm.Trajectories(line(), state=torch.zeros(6, 3, 1), action=torch.zeros(6, 2, 1), episode=[0, 0, 1, 1, 2, 2])
    found = resampled(log, generator)
    assert len(found) == 6
    assert found.episode[::2].tolist() == found.episode[1::2].tolist()


def test_student_t_over_refits() -> None:
    """With 9 degrees of freedom the two-sided 5 % point is 2.262157."""
    original = xr.Dataset({"effect": (("horizon", "variable"), np.array([[1.0, 2.0, 0.0]]))})
    value, error = np.array([[0.0, 2.262157, 0.0]]), np.array([[1.0, 1.0, 0.0]])
    found = judged("attempt", value, error, original=original, refits=10, level=0.95)
    assert found.dataset.p_value.values.ravel() == pytest.approx([1.0, 0.05, 1.0], abs=1e-6)
    assert found.dataset.lower.values.ravel() == pytest.approx([-2.262157, 0.0, 0.0], abs=1e-5)
    assert found.p_value == pytest.approx(0.15, abs=1e-6)
    assert found.passed
    certain = judged("attempt", value, 0 * error, original=original, refits=10, level=0.95)
    assert certain.p_value == 0
    assert not certain.passed
