"""The trust horizon ends before the first step that is off, by the rule that the verdict words."""

import numpy as np
import pytest
import xarray as xr

import bayeswm as bwm
from bayeswm.diagnostics import trust_horizon
from bayeswm.diagnostics.verdict import verdict


def made(*coverage: list[float], error: float = 0.02, **attrs: float) -> xr.Dataset:
    values = np.array(coverage).T[:, :, None]
    steps, dims = np.arange(1, len(values) + 1), ("horizon", "variable", "level")
    return xr.Dataset(
        {"coverage": (dims, values), "coverage_se": (dims, np.full_like(values, error))},
        coords={
            "horizon": steps,
            "time": ("horizon", 0.1 * steps),
            "variable": ["x", "v"][: len(coverage)],
            "level": [0.9],
        },
        attrs={"recordings": 100, "windows": 400, **attrs},
    )


def test_by_variable_and_jointly() -> None:
    found = trust_horizon(made([0.9, 0.88, 0.8, 0.9], [0.9, 0.91, 0.89, 0.9]))
    assert found.steps.values.tolist() == [2, 4]
    assert found.time.values == pytest.approx([0.2, 0.4])
    assert (found.joint_steps.item(), found.joint_time.item()) == (2, pytest.approx(0.2))


def test_off_at_once_is_no_trust() -> None:
    found = trust_horizon(made([0.5, 0.9], [0.9, 1.0]))
    assert found.steps.values.tolist() == [0, 1]
    assert (found.joint_steps.item(), found.joint_time.item()) == (0, 0)


def test_two_standard_errors_where_calibration_is_refuted_and_three_otherwise() -> None:
    coverage = [0.9, 0.85]
    assert trust_horizon(made(coverage)).steps.item() == 2
    assert trust_horizon(made(coverage, calibration_p_value=0.01)).steps.item() == 1


def test_the_verdict_says_the_same() -> None:
    dataset = made([0.9, 0.88, 0.8, 0.7], [0.9, 0.9, 0.9, 0.9])
    lines = verdict(dataset, level=0.9).splitlines()
    assert lines[0].endswith(f"trust horizon {trust_horizon(dataset).time.values[0]:.3g} s.")
    assert "hold at all 4 steps" in lines[1]


def test_a_single_recording_cannot_be_judged() -> None:
    found = trust_horizon(made([0.9, 0.5], error=float("nan")))
    assert found.steps.isnull().all()
    assert np.isnan(found.joint_time.item())


def test_another_level_is_refused() -> None:
    with pytest.raises(bwm.SpecError, match=r"one of the levels \[0\.9\], got 0\.8"):
        trust_horizon(made([0.9]), level=0.8)
