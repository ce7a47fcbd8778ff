import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from torch import Tensor

import bayeswm as bwm
from bayeswm.planning import (
    Aleatoric,
    CVaR,
    Entropic,
    Epistemic,
    Mean,
    MeanDeviation,
    MeanVariance,
    Quantile,
    Risk,
    WorstWorld,
)

COHERENT = [Mean(), CVaR(0.3), WorstWorld(), WorstWorld(CVaR(0.5)), Epistemic(CVaR(0.4)), Aleatoric(CVaR(0.4))]
ALL = [
    *COHERENT,
    Quantile(0.7),
    Entropic(0.5),
    Entropic(-0.5),
    MeanDeviation(1.0),
    MeanDeviation(-1.0),
    MeanVariance(0.3),
    Epistemic(MeanDeviation(-1.0)),
    Aleatoric(Entropic(0.2)),
]
COSTS = arrays(np.float64, (3, 4), elements=st.floats(-50.0, 50.0))
WEIGHTS = arrays(np.float64, (3,), elements=st.floats(0.05, 1.0)).map(lambda w: w / w.sum())


def risk_of(risk: Risk, costs: np.ndarray, weight: np.ndarray) -> float:
    return float(risk(torch.tensor(costs), torch.tensor(np.log(weight))))


def atoms(costs: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All particles in ascending order, with their weights."""
    order = np.argsort(costs.ravel(), kind="stable")
    return costs.ravel()[order], np.repeat(weight / costs.shape[1], costs.shape[1])[order]


def cvar(costs: np.ndarray, weight: np.ndarray, share: float) -> float:
    """min over c of c + E max(cost - c, 0) / share (Rockafellar & Uryasev), whose minimum is at one of the costs."""
    values, mass = atoms(costs, weight)
    return min(c + float(mass @ np.maximum(values - c, 0.0)) / share for c in values)


def brute(risk: Risk, costs: np.ndarray, weight: np.ndarray) -> float:
    values, mass = atoms(costs, weight)
    mean = float(mass @ values)
    variance = float(mass @ (values - mean) ** 2)
    alone = np.ones(1)
    match risk:
        case Mean():
            return mean
        case MeanDeviation(k):
            return mean + k * math.sqrt(variance)
        case MeanVariance(k):
            return mean + k * variance
        case CVaR(share):
            return cvar(costs, weight, share)
        case Quantile(p):
            return float(values[np.searchsorted(mass.cumsum(), p * (1 - 1e-6))])
        case Entropic(k):
            return mean + math.log(float(mass @ np.exp(k * (values - mean)))) / k
        case WorstWorld(within):
            return max(brute(within, row[None], alone) for row in costs)
        case Epistemic(across):
            return brute(across, costs.mean(1, keepdims=True), weight)
        case Aleatoric(within):
            return float(weight @ [brute(within, row[None], alone) for row in costs])
    raise NotImplementedError


@pytest.mark.parametrize("risk", ALL, ids=str)
@settings(max_examples=20)
@given(costs=COSTS, weight=WEIGHTS)
def test_equals_the_definition(risk: Risk, costs: np.ndarray, weight: np.ndarray) -> None:
    assert risk_of(risk, costs, weight) == pytest.approx(brute(risk, costs, weight), rel=1e-9, abs=1e-6)


@settings(max_examples=50)
@given(costs=COSTS, weight=WEIGHTS, probability=st.floats(0.02, 0.98))
def test_a_quantile_is_the_smallest_cost_that_enough_stay_under(
    costs: np.ndarray, weight: np.ndarray, probability: float
) -> None:
    values, mass = atoms(costs, weight)
    found = risk_of(Quantile(probability), costs, weight)
    assert mass[values <= found].sum() >= probability * (1 - 1e-5)
    assert mass[values < found].sum() <= probability * (1 + 1e-9)


@settings(max_examples=50)
@given(costs=COSTS, weight=WEIGHTS)
def test_all_of_the_costs_are_the_mean(costs: np.ndarray, weight: np.ndarray) -> None:
    assert risk_of(CVaR(1.0), costs, weight) == pytest.approx(risk_of(Mean(), costs, weight), abs=1e-9)


@settings(max_examples=50)
@given(costs=COSTS, weight=WEIGHTS, share=st.floats(0.01, 1.0))
def test_the_worst_share_is_at_least_the_mean_and_the_quantile(
    costs: np.ndarray, weight: np.ndarray, share: float
) -> None:
    worst = risk_of(CVaR(share), costs, weight)
    assert worst >= risk_of(Mean(), costs, weight) - 1e-9
    assert worst <= costs.max() + 1e-9
    if share < 1:
        assert worst >= risk_of(Quantile(1 - share), costs, weight) - 1e-9


@pytest.mark.parametrize("risk", ALL, ids=str)
@settings(max_examples=20)
@given(costs=COSTS, weight=WEIGHTS, shift=st.floats(-20.0, 20.0))
def test_a_constant_passes_through(risk: Risk, costs: np.ndarray, weight: np.ndarray, shift: float) -> None:
    assert risk_of(risk, costs + shift, weight) == pytest.approx(risk_of(risk, costs, weight) + shift, abs=1e-6)


@pytest.mark.parametrize("risk", [*COHERENT, Quantile(0.6), Entropic(0.5), Entropic(-0.5)], ids=str)
@settings(max_examples=20)
@given(costs=COSTS, more=arrays(np.float64, (3, 4), elements=st.floats(0.0, 5.0)), weight=WEIGHTS)
def test_a_larger_cost_is_no_smaller_risk(risk: Risk, costs: np.ndarray, more: np.ndarray, weight: np.ndarray) -> None:
    assert risk_of(risk, costs + more, weight) >= risk_of(risk, costs, weight) - 1e-7


@pytest.mark.parametrize("risk", ALL, ids=str)
def test_a_single_world_with_one_particle_is_its_cost(risk: Risk) -> None:
    assert risk_of(risk, np.array([[3.5]]), np.ones(1)) == pytest.approx(3.5)


@pytest.mark.parametrize("risk", ALL, ids=str)
def test_each_candidate_has_its_own(risk: Risk) -> None:
    g = torch.Generator().manual_seed(0)
    costs = torch.randn(3, 4, 5, 2, generator=g, dtype=torch.float64)
    log_weight = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    together = risk(costs, log_weight)
    assert together.shape == (5, 2)
    alone = torch.stack([risk(costs[:, :, i, j], log_weight) for i in range(5) for j in range(2)]).view(5, 2)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("risk", [r for r in ALL if not isinstance(r, Quantile)], ids=str)
def test_a_particle_that_diverged_makes_the_risk_infinite(risk: Risk) -> None:
    costs = torch.tensor([[1.0, 2.0, 3.0], [0.5, float("inf"), 2.0]])
    assert float(risk(costs, torch.full((2,), 0.5).log())) == float("inf")


def test_a_quantile_is_infinite_where_enough_diverge() -> None:
    costs = torch.tensor([[1.0, float("inf"), 3.0, 2.0]])
    alone = torch.zeros(1)
    assert float(Quantile(0.75)(costs, alone)) == 3.0
    assert float(Quantile(0.76)(costs, alone)) == float("inf")


@pytest.mark.parametrize(
    "risk", [Mean(), MeanDeviation(1.0), CVaR(0.5), Entropic(1.0), Quantile(0.9), WorstWorld()], ids=str
)
def test_a_world_without_weight_does_not_count(risk: Risk) -> None:
    costs = torch.tensor([[1.0, 2.0], [float("inf"), 7.0]])
    one = torch.tensor([0.0, float("-inf")])
    assert float(risk(costs, one)) == pytest.approx(float(risk(costs[:1], torch.zeros(1))))


@pytest.mark.parametrize("sensitivity", [1e-3, 1.0, 1e3, -1e3])
def test_the_entropic_risk_does_not_overflow(sensitivity: float) -> None:
    costs = torch.tensor([[0.0, 1e6]])
    found = float(Entropic(sensitivity)(costs, torch.zeros(1)))
    assert 0.0 <= found <= 1e6
    if abs(sensitivity) == 1e3:  # the largest cost, or the smallest, less log 2 / k
        assert found == pytest.approx(1e6 if sensitivity > 0 else 0.0, abs=1.0)


@pytest.mark.parametrize("risk", ALL, ids=str)
def test_single_precision_stays(risk: Risk) -> None:
    costs = torch.rand(3, 4, 6)
    log_weight = torch.log_softmax(torch.zeros(3, dtype=torch.float64), 0)
    found = risk(costs, log_weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), risk(costs.double(), log_weight), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("risk", [Mean(), CVaR(0.5), Entropic(0.5), MeanVariance(1.0), Aleatoric(CVaR(0.5))], ids=str)
def test_differentiable(risk: Risk) -> None:
    def value(costs: Tensor) -> Tensor:
        return risk(costs, torch.tensor([0.4, 0.6], dtype=torch.float64).log())

    costs = torch.tensor([[0.3, 1.2, 2.5], [0.7, 3.0, 1.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (costs,))


def test_numbers_that_make_no_sense() -> None:
    for bad in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(bwm.SpecError, match="share"):
            CVaR(bad)
    for bad in (0.0, 1.0, float("nan")):
        with pytest.raises(bwm.SpecError, match="probability"):
            Quantile(bad)
    for bad in (0.0, float("inf"), float("nan")):
        with pytest.raises(bwm.SpecError, match="sensitivity"):
            Entropic(bad)
