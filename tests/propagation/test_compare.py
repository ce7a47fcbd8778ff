"""The comparison of methods: distances of known laws, labels, and one stream of noise for each method."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import SpecError
from bayeswm.propagation import FixedWorlds, FreshWorlds, Linearized, MomentMatching, Unscented, compare
from bayeswm.propagation.compare import _Marginals
from tests.propagation import linear_systems as lin
from tests.propagation.linear_systems import generator, normal

F64 = torch.float64


def gaussian(mean: float, sd: float) -> bwm.Predictive:
    law = bwm.Gaussian(torch.full((1, 1, 1), mean, dtype=F64), torch.tensor([sd], dtype=F64))
    variables = lin.schema(1, 1).state
    return bwm.Predictive(variables, [law], torch.zeros(1, dtype=F64), exhaustive=True, time_step=1.0)


def test_area_between_distribution_functions() -> None:
    """Wasserstein-1 of a shift is the shift; of a scale it is the difference of the scales times E|z|."""
    shifted = _Marginals(gaussian(0.3, 2.0)).distance(_Marginals(gaussian(1.0, 2.0)))
    assert float(shifted) == pytest.approx(0.7, rel=1e-4)
    scaled = _Marginals(gaussian(0.0, 2.0)).distance(_Marginals(gaussian(0.0, 3.0)))
    assert float(scaled) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-3)


def test_distribution_of_weighted_particles() -> None:
    """x0 in two worlds of weights 1/4 and 3/4, at rest: a step function with a jump of each."""
    worlds = lin.linear_worlds(2, state=1).replace(A=1.0, B=0.0, process_noise=0.0, c=torch.tensor([[0.0], [1.0]]))
    worlds = worlds.reweight(torch.tensor([0.25, 0.75]).log())
    found = bwm.rollout(worlds, torch.zeros(1), torch.zeros(1, 1), particles=3, generator=generator())
    x = torch.tensor([-0.5, 0.0, 0.5, 1.0, 2.0], dtype=F64).view(-1, 1, 1)
    torch.testing.assert_close(_Marginals(found)(x).flatten(), torch.tensor([0.0, 0.25, 0.25, 1.0, 1.0], dtype=F64))


def test_on_linear_worlds_methods_in_each_world_are_right_and_pooled_ones_are_off() -> None:
    worlds, belief, actions = lin.linear_worlds(6), lin.start(), normal(3, 12, 1)
    each, pooled = MomentMatching(), MomentMatching(pooled=True)
    table = compare(
        worlds,
        belief,
        actions,
        methods=[each, pooled, Linearized()],
        reference=FixedWorlds(2000),
        generator=generator(),
    )
    exact = [f(worlds, *lin.as_belief(belief), actions) for f in (lin.in_each_world, lin.pooled)]
    sd = [e.covariance.diagonal(dim1=-2, dim2=-1).sqrt() for e in exact]
    off = ((exact[1].mean - exact[0].mean).abs() / sd[0]).mean(0)
    # 12,000 particles of unequal weights in all: errors of some 1 / sqrt(2,000)
    noise = {"rtol": 0, "atol": 5 / math.sqrt(2000)}
    torch.testing.assert_close(torch.tensor(table["mean_error"].values[1]), off, **noise)
    torch.testing.assert_close(torch.tensor(table["sd_ratio"].values[1]), (sd[1] / sd[0]).mean(0), **noise)
    torch.testing.assert_close(torch.tensor(table["sd_ratio"].values[0]), torch.ones(12, 2, dtype=F64), **noise)
    assert float(table["wasserstein"][0].max()) < noise["atol"]
    assert float(table["wasserstein"][1].max()) > 3 * noise["atol"]
    share = exact[0].aleatoric.diagonal(dim1=-2, dim2=-1) / sd[0].square()
    torch.testing.assert_close(torch.tensor(table["epistemic_share"].values[0]), 1 - share.mean(0))
    assert table["methods"].values.tolist() == [repr(each), repr(pooled), "Linearized(pooled=False)"]
    assert table["variable"].values.tolist() == ["x0", "x1"]
    assert table["horizon"].values.tolist() == list(range(1, 13))
    assert bool((table["seconds"] > 0).all())


def test_names_streams_and_refusals() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0, 0.2)), noise=0.1)
    given = {"worlds": 4, "reference": FixedWorlds(50)}
    methods = {"few": FixedWorlds(5), "fresh": FreshWorlds(5), "points": Unscented()}
    one = compare(model, torch.zeros(2), torch.zeros(3, 1), methods=methods, generator=generator(), **given)
    alone = compare(
        model, torch.zeros(2), torch.zeros(3, 1), methods={"few": FixedWorlds(5)}, generator=generator(), **given
    )
    assert one["methods"].values.tolist() == ["few", "fresh", "points"]
    first, same = (t.sel(methods="few").drop_vars(["seconds", "methods"]) for t in (one, alone))
    assert first.identical(same)
    assert bool(one["epistemic_share"].sel(methods="fresh")[1:].isnull().all())
    for methods, text in (([], "at least one method"), ([MomentMatching], "expected methods such as")):
        with pytest.raises(SpecError, match=text):
            compare(model, torch.zeros(2), torch.zeros(3, 1), methods=methods, generator=generator())
    with pytest.raises(SpecError, match=r"generator=torch\.Generator"):
        compare(model, torch.zeros(2), torch.zeros(3, 1), generator=None)
    everything = compare(model, torch.zeros(2), torch.zeros(3, 1), generator=generator(), **given)
    assert everything.sizes["methods"] == 7
