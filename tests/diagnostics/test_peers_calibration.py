"""Agreement with uncertainty-toolbox, an independent implementation, where both compute the same."""

import numpy as np
import pytest
import torch
import uncertainty_toolbox as uct

from bayeswm.diagnostics import adversarial_groups, reliability
from tests.diagnostics.gaussians import gaussian_forecast

G = torch.Generator().manual_seed(0)
MEAN, CAME = (torch.randn(200, generator=G, dtype=torch.float64) for _ in range(2))
SCALE = 0.5 + torch.rand(200, generator=G, dtype=torch.float64)
ONE = gaussian_forecast(MEAN, SCALE, CAME)
ARRAYS = (MEAN.numpy(), SCALE.numpy(), CAME.numpy())


def test_curve_error_and_sharpness() -> None:
    found = reliability(ONE, points=98, bootstrap=2).squeeze()
    expected, observed = uct.get_proportion_lists_vectorized(*ARRAYS, num_bins=100)
    assert np.allclose(found.level, expected[1:-1])
    assert np.allclose(found.coverage, observed[1:-1], atol=1e-12)
    # theirs counts the levels 0 and 1 too, where the error is 0
    theirs = uct.mean_absolute_calibration_error(*ARRAYS, num_bins=100)
    assert found.ece.item() * 98 / 100 == pytest.approx(theirs, abs=1e-6)
    assert found.sharpness.item() == pytest.approx(uct.sharpness(SCALE.numpy()), abs=1e-6)
    _, quantile = uct.get_proportion_lists_vectorized(*ARRAYS, num_bins=100, prop_type="quantile")
    # theirs counts residuals predicted - observed, so that its curve is ours seen from the other end
    ours = (found.ecdf_difference + found.level).values
    assert np.allclose(1 - ours[::-1], quantile[1:-1], atol=1e-12)


@pytest.mark.statistical
def test_adversarial_groups_agree_within_their_chance() -> None:
    np.random.seed(0)  # noqa: NPY002  theirs knows no generator
    theirs = uct.adversarial_group_calibration(
        *ARRAYS, cali_type="mean_abs", num_bins=100, num_group_bins=10, num_group_draws=10, num_trials=5
    )
    share, worst = float(theirs.group_size[3]), float(theirs.score_mean[3])
    ours = [adversarial_groups(ONE, shares=(share,), groups=10, points=98, seed=s).worst_ece.item() for s in range(20)]
    spread = np.hypot(np.std(ours) / np.sqrt(20), float(theirs.score_stderr[3]) + np.std(ours) / np.sqrt(5))
    assert abs(np.mean(ours) * 98 / 100 - worst) < 5 * spread
