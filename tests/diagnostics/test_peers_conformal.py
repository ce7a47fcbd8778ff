"""Conformal prediction agrees with MAPIE where the two overlap."""

import numpy as np
import pytest
import torch

from bayeswm.diagnostics import AdaptiveConformal, conformal_quantile

pytest.importorskip("mapie", reason="MAPIE is not installed: pip install 'bayeswm[dev]'")


class Zero:
    """A fitted regression that always says 0."""

    n_features_in_ = 1

    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.zeros(len(X))


def fitted(scores: np.ndarray):
    from mapie.regression import TimeSeriesRegressor
    from sklearn.base import BaseEstimator, RegressorMixin

    class Estimator(Zero, RegressorMixin, BaseEstimator):
        pass

    model = TimeSeriesRegressor(Estimator(), method="aci", cv="prefit")
    return model.fit(np.zeros((len(scores), 1)), scores)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_split_conformal_interval(level: float) -> None:
    scores = np.random.default_rng(0).normal(size=96)
    _, bounds = fitted(scores).predict(np.zeros((1, 1)), confidence_level=level)
    signed = torch.from_numpy(scores)
    low, high = (conformal_quantile(s, 0.5 + level / 2, recording=torch.arange(96)) for s in (-signed, signed))
    assert np.allclose(bounds[0, :, 0], [-float(low), float(high)], atol=1e-12)


def test_adaptive_levels() -> None:
    rng = np.random.default_rng(1)
    scores, came = rng.normal(size=96), 1.3 * rng.normal(size=200)
    model, level, rate = fitted(scores), 0.8, 0.013
    ours = AdaptiveConformal(level=level, rate=rate)
    for y in came:
        model.adapt_conformal_inference(np.zeros((1, 1)), np.array([y]), gamma=rate, confidence_level=level)
        # either end of a level's interval is the ceil(97 (1 + level) / 2)-th of 96 scores, from below or from above
        beyond = max((scores < y).sum(), (scores > y).sum())
        ours.update(torch.tensor(max(2 * beyond / 97 - 1, 0.0), dtype=torch.float64))
        (alpha,) = model.current_alpha.values()
        # MAPIE holds alpha between 0 and 1, which costs it the bound; here it stays inside
        assert 0 < alpha < 1
        assert np.isclose(1 - alpha, float(ours.level), atol=1e-9)
