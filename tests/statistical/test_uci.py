"""Regression as one step: UCI data with the standard splits, beside MC dropout's published means."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import DataError, EstimateWarning
from benchmarks.uci import (
    FAMILIES,
    MANY,
    PROBLEMS,
    SPLITS,
    Tried,
    as_good,
    chosen,
    families,
    fitted,
    load,
    mean_and_error,
    run,
)

ROWS = {"boston": (506, 13), "concrete": (1030, 8), "energy": (768, 8), "power-plant": (9568, 4)}


@pytest.mark.parametrize("name", PROBLEMS)
def test_splits_are_the_standard_ones(name, measured_data):
    table = load(name, measured_data)
    assert table.x.shape == ROWS[name]
    assert table.y.shape == (len(table.x), 1)
    assert len(table.splits) == SPLITS
    for train, test in table.splits:
        assert torch.equal(torch.cat((train, test)).sort().values, torch.arange(len(table.x)))
        assert len(test) == round(0.1 * len(table.x))


def test_other_files_are_refused(tmp_path, measured_data):
    here = measured_data / "uci" / "energy"
    there = tmp_path / "uci" / "energy"
    there.mkdir(parents=True)
    for path in here.glob("*.txt"):
        (there / path.name).write_bytes(path.read_bytes())
    assert load("energy", tmp_path).y.shape == (768, 1)
    (there / "index_test_3.txt").write_bytes((here / "index_test_4.txt").read_bytes())
    with pytest.raises(DataError, match="expected files of SHA-256"):
        load("energy", tmp_path)


def test_the_chosen_family_and_the_bar():
    found = {"a": Tried("", -2.0, 3.0, -2.5), "b": Tried("", -1.9, 2.8, -2.3)}
    assert chosen(found) == "b"
    assert mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 3**-0.5))
    # boston: 2.904 and -2.402; both means miss by less than their standard error of 0.1, then by more
    assert as_good("boston", [Tried("", 0.0, 2.99 + e, -2.49 + e) for e in (-0.1, 0.1)]) == (True, True)
    assert as_good("boston", [Tried("", 0.0, 3.01 + e, -2.51 + e) for e in (-0.1, 0.1)]) == (False, False)


def test_many_rows_take_wider_networks() -> None:
    few, many = families(1.0, MANY), families(1.0, MANY + 1)
    assert tuple(few) == tuple(many) == FAMILIES
    assert (list(few["Laplace"]), list(many["Laplace"])) == (["50"], ["100"])
    assert list(many["deep ensemble"]) == [*few["deep ensemble"], "200, 200"]


def test_a_process_is_conditioned_on_the_rows_that_it_did_not_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(40, 2, generator=g, dtype=torch.float64)
    y = torch.sin(4 * x.sum(-1, keepdim=True)) + 0.1 * torch.randn(40, 1, generator=g, dtype=torch.float64)
    make = families(1.0, 40)["GP"]["Matern 3/2"]
    first = fitted(make, x[:30], y[:30])
    monkeypatch.setattr("benchmarks.uci.MANY", 30)
    both = fitted(make, x, y)
    assert isinstance(first, bwm.GaussianProcess)
    assert isinstance(both, bwm.GaussianProcess)
    assert torch.equal(both.hyper.noise, first.hyper.noise)
    given = both.posterior(torch.zeros(10, 1), x[30:]).variance
    assert bool((given < first.posterior(torch.zeros(10, 1), x[30:]).variance).all())


@pytest.mark.slow
@pytest.mark.filterwarnings(f"ignore::{EstimateWarning.__module__}.{EstimateWarning.__name__}")
def test_chosen_family_is_as_good_as_mc_dropout(measured_data):
    # one split, against the means over 20, so only a guard; `python benchmarks/uci.py` is the measurement
    table, problem = load("boston", measured_data), PROBLEMS["boston"]
    found = {family: run(table, 0, family) for family in FAMILIES}
    best = found[chosen(found)]
    assert best.rmse <= problem.rmse
    assert best.log_score >= problem.log_score
