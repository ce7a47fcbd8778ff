import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import bayeswm as bwm
from bayeswm.causal import Mechanism, StructuralModel
from bayeswm.causal.counterfactuals.noise_belief import noise_belief, probes, straight
from bayeswm.causal.counterfactuals.partly_seen import PartlySeen
from tests.causal.reference_models import c1

NAN = float("nan")


def sliced(model: StructuralModel, *rows: list[float]) -> PartlySeen:
    """Slices of a static model, each an episode."""
    blank = [0.0] * len(rows[0])
    data = bwm.Trajectories(model.schema, state=[[blank, list(row)] for row in rows], allow_missing=True)
    return PartlySeen(model.draw(1), data)


def test_density_and_posterior_of_a_normal_slice() -> None:
    seen = sliced(c1(), [1.0, 1.0, NAN], [NAN, 1.0, NAN], [2.0, NAN, NAN], [1.0, 1.0, 0.3])
    found = noise_belief(seen)
    assert found is not None
    # Y = -Z + 2 Ux + Uy, X = Z + Ux, Z = Uz
    root = torch.tensor([[0.5, 2.0, -1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    covariance = root @ root.mT
    for row, columns, values in (
        (0, [0, 1], [1.0, 1.0]),
        (1, [1], [1.0]),
        (2, [0], [2.0]),
        (3, [0, 1, 2], [1, 1, 0.3]),
    ):
        some, value = covariance[columns][:, columns], torch.tensor(values, dtype=torch.float64)
        expected = MultivariateNormal(torch.zeros(len(columns)).double(), some).log_prob(value)
        assert found.log_density[0, row].item() == pytest.approx(expected.item(), abs=1e-10)
        if row < 3:
            gain = root[columns].mT @ torch.linalg.inv(some)
            mean, left = gain @ value, torch.eye(3).double() - gain @ root[columns]
            # coordinates Y, X, Z; those of recorded variables are solved from the others
            free = [i for i, (_, c) in enumerate(seen.free) if c not in columns]
            own = [seen.free[i][1] for i in free]
            torch.testing.assert_close(found.mean[0, row, free], mean[own])
            spread = found.root[0, row] @ found.root[0, row].mT
            torch.testing.assert_close(spread[free][:, free], left[own][:, own])


def test_what_has_no_noise_holds_exactly() -> None:
    """Y = X + Z = 3 leaves X ~ N(1.5, 0.5) with Z = 3 - X."""
    free = Mechanism(lambda: 0.0, noise=1.0)
    model = StructuralModel({"X": free, "Z": free, "Y": Mechanism(lambda X, Z: X + Z)})
    found = noise_belief(sliced(model, [NAN, NAN, 3.0]))
    assert found is not None
    torch.testing.assert_close(found.mean[0, 0], torch.tensor([1.5, 1.5]).double())
    covariance = found.root[0, 0] @ found.root[0, 0].mT
    torch.testing.assert_close(covariance, torch.tensor([[0.5, -0.5], [-0.5, 0.5]]).double())
    assert found.log_density.item() == pytest.approx(Normal(0.0, 2.0**0.5).log_prob(torch.tensor(3.0)).item())
    with pytest.raises(bwm.NotInvertible, match="without noise"):
        noise_belief(sliced(model, [1.0, 1.0, 3.0]))


def test_products_are_affine_once_a_factor_is_known() -> None:
    free = Mechanism(lambda: 0.0, noise=1.0)
    model = StructuralModel({"X": free, "Z": free, "Y": Mechanism(lambda X, Z: X * Z, noise=1.0)})
    found = noise_belief(sliced(model, [2.0, NAN, 3.0]))
    assert found is not None
    # precision 1 + 4, mean 6 / 5; the density is that of X = 2 and of Y ~ N(0, 5) at 3
    assert found.mean.item() == pytest.approx(1.2)
    assert found.root.square().item() == pytest.approx(0.2)
    density = Normal(0.0, torch.tensor([1.0, 5.0**0.5]).double()).log_prob(torch.tensor([2.0, 3.0]).double()).sum()
    assert found.log_density.item() == pytest.approx(density.item())
    assert noise_belief(sliced(model, [NAN, NAN, 3.0])) is None


def test_too_much_algebra_is_refused() -> None:
    schema = bwm.Schema(state=[bwm.Variable("s"), bwm.Variable("q")], time_step=1.0)
    walk = Mechanism(lambda s: s, ("s[t-1]",), noise=1.0)
    model = StructuralModel({"s": walk, "q": Mechanism(lambda s: s, noise=1.0)}, schema=schema)
    states = torch.full((200, 701, 2), NAN)
    states[:, 0], states[..., 1] = 0.0, 0.0
    data = bwm.Trajectories(schema, state=states, allow_missing=True)
    with pytest.raises(bwm.SpecError, match="fewer episodes"):
        noise_belief(PartlySeen(model.draw(1), data))


def test_small_numbers_are_held_against_their_own_size() -> None:
    points = probes(2, like=torch.zeros(1, dtype=torch.float64))
    bent = 1e-12 * torch.stack((points.sum(-1), points.square().sum(-1)), -1)[None]
    assert straight(bent, 2) is not None
    assert straight(bent, 2, least=bent.abs().flatten(0, -2).amax(0)) is None
    assert straight(bent[..., :1], 2, least=bent[..., :1].abs().amax()) is not None
