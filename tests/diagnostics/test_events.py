"""Events: the Brier score, its parts, and frequencies in bins."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.diagnostics import event_reliability, forecast
from tests.diagnostics.gaussians import path_forecast
from tests.diagnostics.recordings import Linear, record

F64 = torch.float64


def beyond(x: torch.Tensor) -> torch.Tensor:
    return (x[..., 0] > 0).any(-1)


def by_step(x: torch.Tensor) -> torch.Tensor:
    return (x[..., 0] > 0).cummax(-1).values


@given(st.integers(0, 2**31), st.integers(5, 30), st.integers(1, 12))
def test_murphy_and_the_score_by_hand(seed: int, n: int, bins: int) -> None:
    g = torch.Generator().manual_seed(seed)
    paths, came = torch.randn(7, n, 2, generator=g, dtype=F64), torch.randn(n, 2, generator=g, dtype=F64)
    found = event_reliability(path_forecast(paths, came), beyond, bins=bins, bootstrap=5)
    p, o = (paths > 0).any(-1).double().mean(0).numpy(), (came > 0).any(-1).double().numpy()
    assert found.brier.item() == pytest.approx(((p - o) ** 2).mean())
    place = np.minimum((p * bins).astype(int), bins - 1)
    reliable = resolved = spread = mixed = 0.0
    for k in set(place.tolist()):
        of = place == k
        reliable += of.mean() * (p[of].mean() - o[of].mean()) ** 2
        resolved += of.mean() * (o[of].mean() - o.mean()) ** 2
        spread += of.mean() * p[of].var()
        mixed += 2 * of.mean() * ((p[of] - p[of].mean()) * (o[of] - o[of].mean())).mean()
        assert found.frequency[k].item() == pytest.approx(o[of].mean())
        assert found.probability[k].item() == pytest.approx(p[of].mean())
    assert found.reliability.item() == pytest.approx(reliable, abs=1e-12)
    assert found.resolution.item() == pytest.approx(resolved, abs=1e-12)
    assert found.uncertainty.item() == pytest.approx(o.mean() * (1 - o.mean()))
    # Stephenson et al. (2008): what is left is the spread of the forecasts in a bin, less their covariance with events
    assert found.within_bins.item() == pytest.approx(spread - mixed, abs=1e-12)
    assert found["count"].sum().item() == n


def test_perfect_and_constant_forecasts() -> None:
    came = torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [1.0], [1.0]]).double()
    known = event_reliability(path_forecast(came[None].repeat(3, 1, 1), came), beyond, bootstrap=50)
    assert known.brier.item() == pytest.approx(0, abs=1e-12)
    assert known.brier_skill.item() == pytest.approx(1)
    same = torch.tensor([1.0, 1.0, -1.0]).double()[:, None, None].expand(3, 6, 1)
    constant = event_reliability(path_forecast(same, came), beyond, bootstrap=50)
    assert constant.brier_skill.item() == pytest.approx(0, abs=1e-9)
    assert constant.resolution.item() == pytest.approx(0, abs=1e-12)


def test_by_step_is_by_horizon_and_gaps_are_left_out() -> None:
    g = torch.Generator().manual_seed(0)
    paths, came = torch.randn(9, 40, 3, generator=g, dtype=F64), torch.randn(40, 3, generator=g, dtype=F64)
    whole = event_reliability(path_forecast(paths, came), by_step, bootstrap=20)
    assert whole.brier.dims == ("horizon",)
    assert whole.frequency.dims == ("horizon", "bin")
    last = event_reliability(path_forecast(paths, came), beyond, bootstrap=20)
    assert "horizon" not in last.dims
    assert "variable" not in whole.dims
    assert whole.brier.sel(horizon=3).item() == pytest.approx(last.brier.item())
    came[:15, 1] = float("nan")
    gaps = event_reliability(path_forecast(paths, came), by_step, bootstrap=20)
    assert gaps["count"].sum("bin").values.tolist() == [40, 25, 25]
    kept = event_reliability(path_forecast(paths[:, 15:], came[15:]), by_step, bootstrap=20)
    assert np.allclose(gaps.brier[1:], kept.brier[1:])


@pytest.mark.statistical
def test_the_truth_is_reliable_and_errors_are_by_recording(linear: Linear) -> None:
    data = record(linear.truth, episodes=60, steps=24, seed=9)
    found = event_reliability(forecast(linear.truth, data, horizon=6), lambda x: (x[..., 0].abs() > 1).any(-1), bins=5)
    z = (found.frequency - found.probability) / found.frequency_se.where(found["count"] > 20)
    assert found.attrs["recordings"] == 60
    assert float(abs(z).max()) < 4.8
    assert found.brier_skill.item() > 0


def test_bad_events_are_named() -> None:
    one = path_forecast(torch.zeros(3, 5, 2, dtype=F64), torch.zeros(5, 2, dtype=F64))
    with pytest.raises(bwm.SpecError, match=r"event of shape \(\.\.\.\) or \(\.\.\., horizon\)"):
        event_reliability(one, lambda x: x > 0)
    with pytest.raises(bwm.DataError, match="true or false"):
        event_reliability(one, lambda x: x[..., 0].sum(-1) + 0.5)
    with pytest.raises(bwm.SpecError, match="bins >= 1"):
        event_reliability(one, beyond, bins=0)
