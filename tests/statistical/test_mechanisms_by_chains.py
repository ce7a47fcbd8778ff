"""The reference queries on mechanisms learned by HMC: the true answer ranks evenly among those of the worlds.

The systems have the graphs of the reference answers, and coefficients and noise drawn from the prior.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.causal import Learned, Mechanism, StructuralModel, counterfactual
from bayeswm.causal.effects.effect import path_means
from bayeswm.diagnostics import rank_among, uniformity
from tests.causal.learned_models import C1, C2, C5, C6, with_product
from tests.causal.reference_models import c1, c2, c5, c6, line
from tests.statistical.checks import BUDGET
from tests.statistical.test_learned_mechanisms import moments

ROWS, REPETITIONS, DRAWS = 20, 50, 63
ONE, NOISE = Normal(0.0, 1.0), LogNormal(math.log(0.5), 0.3)
# few steps of many chains serve the ranks, not R-hat
SAMPLER = bwm.inference.HMC(chains=DRAWS, warmup=80, draws=8)
LINE = bwm.BayesianDynamics(structure=bwm.structures.Linear(A=ONE, c=ONE), noise=NOISE, inference=SAMPLER)
PRODUCT = partial(with_product, scale=1.0, noise=NOISE, inference=SAMPLER)
Coefficients = dict[str, list[float]]  # by variable: offset, slopes, that of the product, standard deviation


class Case(NamedTuple):
    """What is learned, with which parents, what the answers truly are, and what worlds say."""

    known: StructuralModel | None
    learned: dict[str, tuple[str, ...]]
    exact: Callable[[Coefficients, bwm.Trajectories], Sequence[float]]
    asked: Callable[[bwm.Worlds, bwm.Trajectories], Sequence[Tensor]]
    product: bool = False


def drawn(name: str, parents: tuple[str, ...], product: bool) -> Mechanism:
    """Return a mechanism with parameters of its own for the offset, the slopes and the noise."""
    count = len(parents)

    def fn(*values: Tensor) -> Tensor:
        inputs, own = values[:count], values[count:]
        terms = (*inputs, math.prod(inputs)) if product else inputs
        return own[0] + sum(b * x for b, x in zip(own[1:], terms, strict=True))

    return Mechanism(fn, (*parents, *(f"{name}_{i}" for i in range(count + 1 + product))), f"{name}_noise")


def back_door(worlds: bwm.Worlds, _data: bwm.Trajectories) -> Sequence[Tensor]:
    """Total effect of Z on Y, and the variance of Y under do(X)."""
    high, low = (moments(worlds, torch.zeros(3), bwm.do(Z=v))[0][:, 0] for v in (1.0, 0.0))
    return high - low, moments(worlds, torch.zeros(3), bwm.do(X=1.0))[1][:, 0]


def back_door_exactly(b: Coefficients, _data: bwm.Trajectories) -> Sequence[float]:
    (_, slope, _), (_, x, z, sd) = b["X"], b["Y"]
    return z + x * slope, z**2 + sd**2


def two_steps(worlds: bwm.Worlds, _data: bwm.Trajectories) -> Sequence[Tensor]:
    """Effects of a over one and over two steps, and the variance after each."""
    one, start = bwm.do(a=1.0), torch.ones(3)
    first, other = (moments(worlds, start, bwm.do(a=v))[0] for v in (1.0, 0.0))
    second, control = (moments(worlds, m[:, None], bwm.do(a=v))[0] for m, v in ((first, 1.0), (other, 0.0)))
    own = moments(worlds, start, one)[1][:, 2]
    slope = moments(worlds, first[:, None] + 1, one)[0] - second
    return (first - other)[:, 2], (second - control)[:, 2], own, own * (1 + slope[:, 2].square())


def two_steps_exactly(b: Coefficients, _data: bwm.Trajectories) -> Sequence[float]:
    _, s, a, e, sd = b["s"]
    own = e**2 + sd**2
    return a, a * (1 + s), own, own * (1 + s**2)


def other_past(worlds: bwm.Worlds, data: bwm.Trajectories) -> Sequence[Tensor]:
    """The first episode, had its first action been 1."""
    found = counterfactual(worlds, data[0], bwm.do({"a": 1.0}, steps=0), in_training=True)
    return path_means(found.predictive)[:, 0, 0, :, 0].unbind(-1)


def other_past_exactly(b: Coefficients, data: bwm.Trajectories) -> Sequence[float]:
    _, s, a, _ = b["s"]
    more = a * (1 - data.action[0, 0, 0].item())
    return [seen + more * s**k for k, seen in enumerate(data.states()[0, 1:, 0].tolist())]


def g_formula(worlds: bwm.Worlds, _data: bwm.Trajectories) -> Sequence[Tensor]:
    """Effect of (A0, A1) from (0, 0) to (1, 1), and the variance of Y under it."""
    mean, variance = moments(worlds, torch.zeros(5), bwm.do(A0=1.0, A1=1.0))
    return mean[:, 4] - moments(worlds, torch.zeros(5), bwm.do(A0=0.0, A1=0.0))[0][:, 4], variance[:, 4]


def g_formula_exactly(b: Coefficients, _data: bwm.Trajectories) -> Sequence[float]:
    (_, early, hidden, noise), (_, late, via, direct, sd) = b["L1"], b["Y"]
    return late + via * early, (via * hidden + direct) ** 2 + (via * noise) ** 2 + sd**2


def mediated(worlds: bwm.Worlds, _data: bwm.Trajectories) -> Sequence[Tensor]:
    """Total, natural direct, natural indirect and total indirect effect: Y is affine in M, so that its mean serves."""
    m, y = ([moments(worlds, torch.zeros(3), bwm.do(X=v))[0][:, i] for v in (0.0, 1.0)] for i in (1, 2))
    direct, indirect = (
        moments(worlds, torch.zeros(3), bwm.do(X=v), bwm.do({"M": held[:, None, None]}, steps=slice(1, 2)))[0][:, 2]
        for v, held in ((1.0, m[0]), (0.0, m[1]))
    )
    return y[1] - y[0], direct - y[0], indirect - y[0], y[1] - direct


def mediated_exactly(b: Coefficients, _data: bwm.Trajectories) -> Sequence[float]:
    (at, slope, _), (_, x, m, both, _) = b["M"], b["Y"]
    return x + m * slope + both * (at + slope), x + both * at, m * slope, (m + both) * slope


CASES = {
    "C1": Case(c1(), {k: C1[k] for k in ("X", "Y")}, back_door_exactly, back_door),
    "C2": Case(c2(), {"s": C2["s"]}, two_steps_exactly, two_steps),
    "C3": Case(None, {"s": ("s[t-1]", "a")}, other_past_exactly, other_past),
    "C5": Case(c5(), {k: C5[k] for k in ("L1", "Y")}, g_formula_exactly, g_formula),
    "C6": Case(c6(), {k: C6[k] for k in ("M", "Y")}, mediated_exactly, mediated, product=True),
}


def systems(case: Case) -> tuple[StructuralModel, StructuralModel, dict[str, list[str]]]:
    """Return the truth with its prior, what is learned, and the names of each mechanism's parameters."""
    known, schema = ({}, line()) if case.known is None else (case.known.mechanisms, case.known.schema)
    own, names, unknown = dict[str, Mechanism](), dict[str, list[str]](), dict[str, Learned]()
    for name, parents in case.learned.items():
        product = case.product and len(parents) == 2
        own[name] = drawn(name, parents, product)
        names[name] = [*own[name].causes[len(parents) :], f"{name}_noise"]
        unknown[name] = Learned(PRODUCT if product else LINE, parents)
    laws = {k: NOISE if k.endswith("_noise") else ONE for found in names.values() for k in found}
    truth = StructuralModel(known | own, schema=schema, parameters=laws)
    return truth, StructuralModel(known | unknown, schema=schema), names


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore:R-hat above")
@pytest.mark.parametrize("name", CASES)
def test_chains_rank_the_truth_evenly(name: str) -> None:
    """Simulation-based calibration of the answers; worlds half as far from their mean are found out."""
    case, g, ranks = CASES[name], torch.Generator().manual_seed(0), list[Tensor]()
    truth, model, names = systems(case)
    states, actions = truth.schema.state.size, truth.schema.action.size
    steps = 3 if actions else 1
    for seed in range(REPETITIONS):
        world = truth.draw(1, generator=g)
        start = torch.randn(ROWS // steps, states, generator=g, dtype=torch.float64)
        action = torch.randn(ROWS // steps, steps, actions, generator=g, dtype=torch.float64)
        data = bwm.data.simulate(world, start, action, generator=g)
        b = {k: [world.parameters[own].item() for own in found] for k, found in names.items()}
        exact = torch.tensor(case.exact(b, data), dtype=torch.float64)
        worlds = model.fit(data, seed=seed, progress=False).draw(DRAWS, generator=g)
        said = torch.stack(tuple(case.asked(worlds, data)), -1)
        ranks.append(torch.stack([rank_among(v, exact, generator=g) for v in (said, (said + said.mean(0)) / 2)]))
    p, narrow = uniformity(torch.stack(ranks), draws=DRAWS).combined * ranks[0].shape[-1]
    assert float(p.min()) > BUDGET, p
    assert float(narrow.min()) < BUDGET, narrow
