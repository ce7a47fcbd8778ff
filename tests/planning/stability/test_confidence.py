import numpy as np
import pytest
import torch

from bayeswm.base.errors import SpecError
from bayeswm.planning import clopper_pearson


@pytest.mark.parametrize("trials", [1, 7, 100, 5000])
@pytest.mark.parametrize("level", [0.9, 0.999])
def test_ends_are_quantiles_of_beta_laws(trials, level):
    stats = pytest.importorskip("scipy.stats")
    k = torch.tensor(sorted({0, 1, trials // 3, trials - 1, trials}))
    low, high = clopper_pearson(k, trials, level)
    tail = (1 - level) / 2
    n = k.numpy()
    np.testing.assert_allclose(
        low, np.where(n > 0, stats.beta.ppf(tail, np.maximum(n, 1), trials - n + 1), 0), rtol=1e-7
    )
    np.testing.assert_allclose(
        high, np.where(n < trials, stats.beta.ppf(1 - tail, n + 1, np.maximum(trials - n, 1)), 1), rtol=1e-7
    )


def test_all_and_nothing_have_closed_forms():
    low, high = clopper_pearson(torch.tensor([0, 20]), 20, 0.95)
    assert low[0] == 0
    assert high[1] == 1
    assert float(high[0]) == pytest.approx(1 - 0.025 ** (1 / 20), rel=1e-9)
    assert float(low[1]) == pytest.approx(0.025 ** (1 / 20), rel=1e-9)


def test_shape_is_kept():
    low, high = clopper_pearson(torch.tensor([[1, 2], [2, 3]]), 5)
    assert low.shape == high.shape == (2, 2)
    assert bool((low < torch.tensor([[0.2, 0.4], [0.4, 0.6]])).all())


@pytest.mark.parametrize(
    ("successes", "trials", "level"),
    [
        (torch.tensor(3), 2, 0.9),
        (torch.tensor(-1), 2, 0.9),
        (torch.tensor(1.0), 2, 0.9),
        (torch.tensor(0), 0, 0.9),
        (torch.tensor(1), 2, 1.0),
    ],
)
def test_numbers_that_do_not_fit(successes, trials, level):
    with pytest.raises(SpecError):
        clopper_pearson(successes, trials, level)
