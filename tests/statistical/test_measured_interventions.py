"""Measured interventions: the law of what is set, the scores, and small versions of what the benchmark reports."""

import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.inference import Laplace
from benchmarks.measured_interventions import (
    ACTIVITY,
    ALL,
    BASELINE,
    INSTEAD,
    ON_TOP,
    TARGET,
    WORLDS,
    Empirical,
    cells,
    change,
    consensus,
    difference,
    downstream,
    draws,
    forecast_scores,
    learned,
    logs,
    pendulum,
    recorded,
    scores,
    slope,
    training,
    whole_run,
    with_mass,
)


def test_quantiles_of_measured_values():
    law = Empirical(torch.tensor([3.0, 1.0, 2.0, 5.0]))
    assert law.icdf(torch.tensor([0.0, 0.1, 0.3, 0.6, 0.99, 1.0])).tolist() == [1.0, 1.0, 2.0, 3.0, 5.0, 5.0]


def test_scores_by_hand():
    g = torch.Generator().manual_seed(0)
    samples, seen = torch.randn(3, 40, generator=g).double(), torch.randn(7, generator=g).double()
    found = scores(samples, seen)
    torch.testing.assert_close(found, bwm.diagnostics.crps_samples(samples.mT[..., None].expand(40, 3, 7), seen))
    for less in (change(found, found + 1), difference(found[0], found[0] + 1, torch.arange(7))):
        assert less == pytest.approx((-1, -1, -1))
    value, low, high = change(found, torch.zeros_like(found))
    assert low < value < high


def test_consensus_graph(measured_data):
    parents = consensus()
    assert sum(map(len, parents.values())) == 20
    assert parents["erk"] == (ACTIVITY, "pka")
    assert downstream("akt") == []
    assert sorted(downstream("mek")) == ["akt", "erk"]
    assert set(downstream("pkc")) == {"pka", "raf", "mek", "erk", "akt", "p38", "jnk"}
    assert training("pma", "baseline") == BASELINE
    assert set(training("pma", "all others")) == set(ALL) - {"pma"}
    assert set(TARGET.values()) < set(parents)


def test_slope_of_erk_on_mek(measured_data):
    by_hand = {BASELINE: (0.04, 0.04), training("u0126", "all"): (0.19, 0.01)}
    by_hand[tuple(run for run in ALL if run not in ("u0126", "g0076"))] = (-0.02, 0.01)
    assert {runs: tuple(round(v, 2) for v in slope(runs)) for runs in by_hand} == by_hand


@pytest.mark.statistical
def test_the_law_of_a_target_is_what_was_measured(measured_data):
    model, held, before = learned(BASELINE, "linear"), logs(["u0126"]), logs(BASELINE)
    usual = draws(model)
    for name in ("raf", "pkc"):
        error = (usual[name].mean() - before[name].mean()) / before[name].std()
        assert abs(float(error)) < 5 / len(before[name]) ** 0.5  # a regression keeps means
    after = draws(model, bwm.do(mek=Empirical(held["mek"])))
    assert set(after["mek"].flatten().tolist()) <= set(held["mek"].tolist())
    assert stats.ks_2samp(after["mek"].flatten(), held["mek"]).pvalue > 1e-5
    # the activity of MEK stands between MEK and ERK, and can be scaled alone
    assert torch.equal(after[ACTIVITY], after["mek"])
    less = draws(model, bwm.do({ACTIVITY: bwm.causal.shift(-2.0)}))
    assert torch.equal(less["mek"], usual["mek"])
    torch.testing.assert_close(less[ACTIVITY], usual["mek"] - 2)
    ratio = float((less["erk"] - usual["erk"]).mean()) / -2
    assert ratio == pytest.approx(slope(BASELINE)[0], abs=4 * slope(BASELINE)[1] / 64**0.5)


def test_cells_have_their_activity(measured_data):
    data = cells(["u0126"])
    column = data.schema.state.column
    assert torch.equal(data.state[..., column(ACTIVITY)], data.state[..., column("mek")])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayeswm.FitWarning")
def test_a_payload_is_an_intervention_on_the_mass(measured_data):
    model = pendulum(("energy_shaping",), inference=Laplace(starts=2))
    plain = with_mass(model, (1.0,))
    known = model.draw(WORLDS, generator=torch.Generator().manual_seed(0)).parameters["mass.location"]
    both = with_mass(model, (INSTEAD, ON_TOP)).parameters["mass.location"] / known
    torch.testing.assert_close(both.view(-1, 2).mean(0), torch.tensor([INSTEAD, ON_TOP], dtype=torch.float64))
    heavy = recorded("energy_shaping_1kg")
    without, instead = (forecast_scores(w, heavy) for w in (plain, with_mass(model, (INSTEAD,))))
    assert without.crps.shape == without.error.shape == (38, 50)
    for steps in (5, 10, 25, 50):
        assert difference(instead.crps[:, steps - 1], without.crps[:, steps - 1], instead.block)[2] < 0
    assert whole_run(with_mass(model, (INSTEAD,)), heavy)[0] < 0.5 * whole_run(plain, heavy)[0]
