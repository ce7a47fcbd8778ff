"""What a log tells of hidden causes: how sure effects are, and when they are not to be trusted."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import FitWarning
from bayeswm.base.random import make_generator
from bayeswm.causal import TimeGraph
from tests.causal.confounding.logs import BOW, CASES, ONE, STATE, c2_log, fitted, schema


@pytest.mark.statistical
def test_uncertainty_of_the_first_stage_reaches_the_worlds():
    """The effect has the standard error of two-stage least squares, sd(e + w) / (sd(nu) sqrt(n)).

    With the residual taken for known, that of the outcome alone would be left, sd(w) / (sd(nu) sqrt(n)): a tenth.
    """
    n = 2000
    model = fitted(c2_log(n, "nu"), "a_residual")
    worlds = model.draw(2000, generator=make_generator(0))
    start = worlds.start(torch.zeros(1, dtype=torch.float64))
    effect = (worlds.transition(start, ONE).mean - worlds.transition(start, 0 * ONE).mean).flatten()
    expected = (1.01 / n) ** 0.5
    assert float(effect.std()) == pytest.approx(expected, rel=4.42 * (2 * 2000) ** -0.5 + 3 * n**-0.5)
    assert abs(float(effect.mean()) - 0.5) < 4.42 * expected


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("case", ["nu", "z and y"])
def test_intervals_of_effects_cover(case):
    """Of 60 logs, the 90 % interval of the effect contains it in a number that a binomial law allows."""
    recorded, context, given, _ = CASES[case]
    inside, logs = 0, 60
    for seed in range(logs):
        model = fitted(c2_log(400, *recorded, seed=seed), *context, **given)
        worlds = model.draw(400, generator=make_generator(seed))
        start = worlds.start(torch.zeros(1, dtype=torch.float64))
        effect = (worlds.transition(start, ONE).mean - worlds.transition(start, 0 * ONE).mean).flatten()
        low, high = effect.quantile(torch.tensor([0.05, 0.95]).double())
        inside += int(low <= 0.5 <= high)
    # P(more than 18 of 60 outside) is 4e-6 at a tenth
    assert logs - inside <= 18


def test_weak_instruments_are_warned_of():
    log = c2_log(300, "nu")
    graph = TimeGraph([*STATE, ("nu[t]", "a[t]")], BOW)
    noise = torch.randn(300, 1, 1, generator=make_generator(5), dtype=torch.float64)
    weak = bwm.Trajectories(schema("nu"), state=log.states(), action=log.action, context=noise)
    with pytest.warns(FitWarning, match="F statistic"):
        fitted(weak, "a_residual", graph=graph)
