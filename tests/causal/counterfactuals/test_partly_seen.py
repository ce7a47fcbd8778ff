import pytest
import torch

import bayeswm as bwm
from bayeswm.causal import Mechanism, StructuralModel
from bayeswm.causal.counterfactuals.partly_seen import PartlySeen

NAN = float("nan")


def walk() -> StructuralModel:
    """s = 0.5 s[t-1] + a + noise, q = s + noise."""
    schema = bwm.Schema(state=[bwm.Variable("s"), bwm.Variable("q")], action=[bwm.Variable("a")], time_step=1.0)
    return StructuralModel(
        {
            "s": Mechanism(lambda s, a: 0.5 * s + a, ("s[t-1]", "a"), noise=1.0),
            "q": Mechanism(lambda s: s, noise=2.0),
        },
        schema=schema,
    )


def test_missing_values_follow_from_their_noise() -> None:
    states = [[[1.0, 0.0], [NAN, 3.0], [1.0, NAN]]]
    data = bwm.Trajectories(walk().schema, state=states, action=[[[0.0], [1.0]]], allow_missing=True)
    seen = PartlySeen(walk().draw(1), data)
    assert seen.free == [(0, 0), (1, 1)]
    first, second = seen.along(torch.tensor([0.5, -1.0]).double().view(1, 1, 1, 2))
    # s = 0.5 + 0.5; q = 3 = 1 + 2; then s = 1 = 0.5 + 1 - 0.5; q = 1 - 2
    assert first.state.flatten().tolist() == [1.0, 3.0]
    assert first.noise.flatten().tolist() == [0.5, 1.0]
    assert second.state.flatten().tolist() == [1.0, -1.0]
    assert second.noise.flatten().tolist() == [-0.5, -1.0]
    assert first.solved.flatten().tolist() == [0.0, 1.0]
    assert second.solved.flatten().tolist() == [-0.5, 0.0]
    assert float(first.gap.abs().max()) == 0


def test_whole_slices_have_the_density_of_their_law() -> None:
    g = torch.Generator().manual_seed(0)
    states = torch.randn(2, 4, 2, generator=g, dtype=torch.float64)
    data = bwm.Trajectories(walk().schema, state=states, action=torch.zeros(2, 3, 1).double(), lengths=[3, 2])
    seen = PartlySeen(walk().draw(1), data)
    assert seen.free == []
    slices = seen.along(torch.zeros(1, 1, 2, 0).double())
    total = sum((-0.5 * s.solved.square().sum(-1) - s.log_scale for s in slices), torch.zeros(1, 1, 2).double())
    torch.testing.assert_close(total, walk().draw(1).smooth(data)[1])


def test_an_unknown_start_is_refused_where_it_matters() -> None:
    states = [[[NAN, 0.0], [1.0, 1.0]]]
    data = bwm.Trajectories(walk().schema, state=states, action=[[[0.0]]], allow_missing=True)
    with pytest.raises(bwm.DataError, match="first state"):
        PartlySeen(walk().draw(1), data)
