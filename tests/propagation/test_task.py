"""Policies as seen by moments, and what counts as a method."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Predictive, StructureWorlds, UndefinedWarning
from bayeswm.propagation import Method, MomentReset, Task
from tests.propagation import linear_systems as lin
from tests.propagation.linear_systems import GAIN, IN_EACH, POOLED, NoisyFeedback, feedback, generator

F64 = torch.float64
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


def name(method: Method) -> str:
    return repr(method)


def closed_loop(worlds: StructureWorlds) -> StructureWorlds:
    """The same system with the feedback inside, and the actions as an offset."""
    p = dict(worlds.parameters)
    p["A"] = p["A"] + p["B"] @ GAIN
    return StructureWorlds(worlds.structure, worlds.schema, p, log_weight=worlds.log_weight, exhaustive=True)


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_linear_feedback_is_the_closed_loop(method: Method) -> None:
    worlds, belief = lin.linear_worlds(5), lin.start()
    found = bwm.propagate(worlds, belief, feedback, horizon=8, method=method, generator=generator())
    offsets = 0.1 * torch.arange(8, dtype=F64)[None, :, None].expand(3, -1, -1)
    exact = (lin.pooled if method.pooled else lin.in_each_world)(closed_loop(worlds), *lin.as_belief(belief), offsets)
    torch.testing.assert_close(found.mean, exact.mean, **CLOSE)
    torch.testing.assert_close(found.covariance, exact.covariance, **CLOSE)


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_a_policy_with_moments_of_its_own_adds_its_noise(method: Method) -> None:
    """One world: the noise of the action enters by B, and is aleatoric."""
    worlds, belief = lin.linear_worlds(1), lin.start()
    found = bwm.propagate(worlds, belief, NoisyFeedback(), horizon=5, method=method, generator=generator())
    loop = closed_loop(worlds)
    (mean, cover), A, B = lin.as_belief(belief), loop.parameters["A"][0], worlds.parameters["B"][0]
    extra = 0.04 * B @ B.mT + worlds.parameters["process_noise"][0].square().diag()
    for h in range(5):
        mean = mean @ A.mT + (B @ torch.tensor([0.1 * h], dtype=F64)) + worlds.parameters["c"][0]
        cover = A @ cover @ A.mT + extra
        torch.testing.assert_close(found.mean[:, h], mean, **CLOSE)
        torch.testing.assert_close(found.covariance[:, h], cover, **CLOSE)
    assert bool((found.epistemic_variance == 0).all())


@pytest.mark.parametrize("method", POOLED, ids=name)
@pytest.mark.parametrize("exhaustive", [True, False])
def test_pooled_moments_without_the_split_are_the_same(method: Method, exhaustive: bool) -> None:
    worlds, belief = lin.linear_worlds(5), lin.start()
    worlds = StructureWorlds(worlds.structure, worlds.schema, worlds.parameters, exhaustive=exhaustive)

    def task(*, split: bool) -> Predictive:
        return method.propagate(Task(worlds, belief, feedback, 4, None, 5, generator(), split=split))

    whole, total = task(split=True), task(split=False)
    assert torch.equal(total.mean, whole.mean)
    torch.testing.assert_close(total.covariance, whole.covariance)
    torch.testing.assert_close(total.variance, whole.variance)
    with pytest.warns(UndefinedWarning, match="no split was asked for"):
        assert bool(total.epistemic_variance.isnan().all())


def test_no_method_needs_the_names_of_another() -> None:
    for method in (*IN_EACH, *POOLED):
        assert isinstance(method, Method)
        assert method == type(method)(**vars(method))
    assert MomentReset() != MomentReset(pooled=True)
