"""Averages as labelled data, with errors by recording."""

import numpy as np
import pytest
import torch

import bayeswm as bwm
from bayeswm.diagnostics.bootstrap import cluster_bootstrap
from bayeswm.diagnostics.forecast import Windows
from bayeswm.diagnostics.summary import Summary, window_coords

VARIABLES = bwm.Variables([bwm.Variable("x", unit="m"), bwm.Variable("v", unit="m/s")])


def windows(recording: torch.Tensor, *, start: torch.Tensor | None = None) -> Windows:
    return Windows({}, recording, start, VARIABLES, horizon=3, time_step=0.1)


def test_a_statistic_has_the_errors_of_the_bootstrap_and_its_labels() -> None:
    recording = torch.arange(20) // 2
    values = torch.randn(20, 3, 2, generator=torch.Generator().manual_seed(0)).double().square()
    summary = Summary(recording, resamples=200, seed=5)
    summary.add("rmse", values, ("horizon", "variable"), statistic=torch.sqrt, attrs={"better": "lower"})
    found = summary.dataset(windows(recording), coords={})
    g = torch.Generator().manual_seed(5)
    expected = cluster_bootstrap(values, recording, generator=g, statistic=torch.sqrt, resamples=200)
    for name, value in zip(("rmse", "rmse_se", "rmse_lower", "rmse_upper"), expected, strict=True):
        assert np.array_equal(found[name], value), name
    assert found.horizon.values.tolist() == [1, 2, 3]
    assert found.time.values == pytest.approx([0.1, 0.2, 0.3])
    assert found.unit.values.tolist() == ["m", "m/s"]
    assert (found.attrs["windows"], found.attrs["recordings"]) == (20, 10)
    assert found.rmse.attrs == {"better": "lower"}


def test_what_the_errors_lack_is_said_once() -> None:
    recording = torch.zeros(4)
    summary = Summary(recording, resamples=20, seed=0)
    for name in ("one", "other"):
        summary.add(name, torch.zeros(4, 3, 2), ("horizon", "variable"), attrs={})
    with pytest.warns(bwm.base.errors.UndefinedWarning, match="one recording") as seen:
        found = summary.dataset(windows(recording), coords={})
    assert len(seen) == 1
    assert bool(found.one_se.isnull().all())


def test_windows_bear_their_recording_and_where_they_start() -> None:
    recording = torch.tensor([3, 3, 4])
    assert list(window_coords(windows(recording))) == ["recording"]
    coords = window_coords(windows(recording, start=torch.tensor([0, 5, 0])))
    assert coords["start"][1].tolist() == [0, 5, 0]
