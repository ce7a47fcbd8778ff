"""Laws of large rollouts lie in common blocks; that changes no value and no gradient."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.laws import Gaussian
from bayeswm.base.worlds import StructureWorlds

SCHEMA = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], action=[bwm.Variable("u")], time_step=0.1)


def large(*, constant_noise: bool = False) -> tuple[StructureWorlds, torch.Tensor]:
    """Three random networks and a plan for which a step's law has more than 2^13 values."""
    structure = bwm.structures.MLP(hidden=(8,), schema=SCHEMA)
    g = torch.Generator().manual_seed(0)
    parameters = structure.initial(3, g, torch.float64)
    if constant_noise:
        parameters["process_noise"] = torch.full((3, 2), 0.1, dtype=torch.float64)
    return StructureWorlds(structure, SCHEMA, parameters, exhaustive=True), torch.randn(500, 6, 1, generator=g)


@pytest.mark.parametrize("constant_noise", [False, True])
def test_each_law_is_the_transition_from_the_particle_before(constant_noise: bool) -> None:
    worlds, plan = large(constant_noise=constant_noise)
    with torch.no_grad():
        r = bwm.rollout(worlds, torch.zeros(2), plan, particles=4, generator=torch.Generator().manual_seed(1))
        for t in range(1, 6):
            expected = worlds.transition(r.particles[..., t - 1, :], plan.double()[:, t], step=t)
            law = r.laws[t]
            assert law.mean.numel() > 2**13
            assert isinstance(law, Gaussian)
            assert torch.equal(law.mean, expected.mean)
            assert torch.equal(law.spread, expected.spread)


def test_large_tensors_share_a_block_and_broadcast_ones_stay_small() -> None:
    worlds, plan = large(constant_noise=True)
    with torch.no_grad():
        r = bwm.rollout(worlds, torch.zeros(2), plan, particles=4, generator=torch.Generator().manual_seed(1))
    assert len({law.mean.untyped_storage().data_ptr() for law in r.laws[1:]}) == 1
    spreads = [law.spread for law in r.laws if isinstance(law, Gaussian)]
    assert len(spreads) == 6
    assert max(s.untyped_storage().nbytes() for s in spreads) <= 3 * 2 * 8


def test_gradients_pass_large_rollouts() -> None:
    worlds, plan = large()
    plan = plan.double().requires_grad_()
    r = bwm.rollout(worlds, torch.zeros(2), plan, particles=4, generator=torch.Generator().manual_seed(1))
    last = r.laws[-1].mean.sum()
    (by_plan,) = torch.autograd.grad(last, plan)
    step = torch.zeros_like(plan)
    step[:, 2] = 1e-5
    moved = [
        float(
            bwm.rollout(
                worlds,
                torch.zeros(2),
                plan.detach() + sign * step,
                particles=4,
                generator=torch.Generator().manual_seed(1),
            )
            .laws[-1]
            .mean.sum()
        )
        for sign in (1, -1)
    ]
    assert float(by_plan[:, 2].sum()) == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-6)
