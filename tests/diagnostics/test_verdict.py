"""What a report says in words follows from its numbers."""

import numpy as np
import xarray as xr

from bayeswm.diagnostics.verdict import verdict


def made(coverage: list[float], error: float, *, recordings: int = 100, **attrs: float) -> xr.Dataset:
    steps = np.arange(1, len(coverage) + 1)
    values = np.array(coverage)[:, None, None]
    dims = ("horizon", "variable", "level")
    return xr.Dataset(
        {"coverage": (dims, values), "coverage_se": (dims, np.full_like(values, error))},
        coords={"horizon": steps, "time": ("horizon", 0.1 * steps), "variable": ["angle"], "level": [0.9]},
        attrs={"recordings": recordings, "windows": 400, **attrs},
    )


def test_the_trust_horizon_ends_before_the_first_step_that_is_off() -> None:
    text = verdict(made([0.9, 0.88, 0.8, 0.7], 0.02), level=0.9)
    assert text == (
        "angle: 90 % intervals are too narrow from step 3 (0.3 s) on (80 % inside, 70 % at 0.4 s); trust horizon 0.2 s."
    )


def test_three_standard_errors_or_two_and_the_wrong_side() -> None:
    assert "hold at all 2 steps" in verdict(made([0.9, 0.86], 0.0201, calibration_p_value=0.01), level=0.9)
    assert "too narrow from step 2" in verdict(made([0.9, 0.859], 0.02, calibration_p_value=0.01), level=0.9)
    assert "hold at all 2 steps" in verdict(made([0.9, 0.84], 0.0201), level=0.9)
    assert "too narrow from step 2" in verdict(made([0.9, 0.839], 0.02), level=0.9)
    assert "too wide from the first step, at 1 of 2 steps from there" in verdict(made([1.0, 0.9], 0.02), level=0.9)


def test_no_spread_between_recordings_is_no_proof() -> None:
    # all inside everywhere: the bootstrap sees no error; 400 windows leave sqrt(0.09 / 400) = 0.015
    assert "hold" in verdict(made([0.94], 0.0), level=0.9)
    assert "too wide" in verdict(made([0.946], 0.0), level=0.9)


def test_few_recordings_and_one() -> None:
    assert "All this rests on 4 recordings only." in verdict(made([0.9], 0.02, recordings=4), level=0.9)
    text = verdict(made([0.9, 0.5], float("nan"), recordings=1), level=0.9)
    assert text == (
        "angle: 90 % intervals cannot be judged from a single recording (90 % and 50 % inside at the first and the "
        "last step)."
    )


def test_tubes_and_the_test_of_calibration() -> None:
    found = made([0.9], 0.02, calibration_p_value=0.25)
    ends = {"": 0.62, "_lower": 0.5, "_upper": 0.7}
    found = found.assign({f"tube_coverage{end}": value for end, value in ends.items()})
    last = verdict(found, level=0.9).splitlines()[-1]
    assert (
        last
        == "62 % of whole trajectories inside their 90 % tubes (50 % to 70 %); calibration over all steps: p = 0.25."
    )
