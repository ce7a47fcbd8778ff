"""Interventional predictions are judged as others are: intervened worlds, held against interventional data."""

import pytest
import torch
from torch.distributions import HalfNormal, Normal

import bayeswm as bwm
from bayeswm.causal import assume_confounder, fit_behaviour, intervene
from tests.causal.confounded_logs import confounded_log
from tests.causal.reference_models import line


@pytest.mark.statistical
def test_a_confounded_model_is_seen_on_interventional_data(generator: torch.Generator) -> None:
    """Under do(a = 2) the next state is 0.9 s + 1 + N(0, 1.01); a regression of the log says 1.05 s + 2 + N(0, 0.51).

    With s ~ N(0, 1) the regression's error is N(-1, 1.01 + 0.15^2) against its interval of +- 1.6449 0.51^0.5.
    """
    log = confounded_log(400, 10, generator=generator)
    held_out = confounded_log(1000, 2, generator=generator, do=2.0)
    flat = Normal(torch.zeros(1, 1), 10.0)
    model = bwm.BayesianDynamics(
        structure=bwm.structures.Linear(line(), A=flat, B=flat),
        inference=bwm.inference.Conjugate(draws=100),
        noise=HalfNormal(2.0),
    )
    naive = model.fit(log, seed=0, progress=False).draw(32, generator=generator)
    corrected = assume_confounder(naive, fit_behaviour(log), action_r2=0.5, outcome_r2=0.5 / 0.51)
    wrong, right = (
        bwm.diagnostics.calibration(intervene(worlds, bwm.do(a=2.0)), held_out, horizon=2, levels=(0.9,))
        for worlds in (naive, corrected)
    )
    law = Normal(-1.0, 1.0325**0.5)
    half = torch.tensor(1.6449 * 0.51**0.5)
    exact = float(law.cdf(half) - law.cdf(-half))
    # chance in 1,000 windows; the fit to 4,000 steps moves the regression's mean by 0.016, and its coverage by 0.006
    error = (exact * (1 - exact) / 1000 + 0.006**2) ** 0.5
    assert abs(wrong.coverage.sel(horizon=1).item() - exact) < 4.5 * error
    # the test is against 1,000 simulations: 0.001 is the least that it can say
    assert wrong.attrs["calibration_p_value"] <= 0.001
    # here a mean that is off is of second order; the variance is known to 3 %, which is 0.005 of coverage
    error = (0.9 * 0.1 / 1000 + 0.005**2) ** 0.5
    assert abs(right.coverage - 0.9).max() < 4.5 * error
    assert right.attrs["calibration_p_value"] > 0.001
