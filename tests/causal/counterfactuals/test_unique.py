import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import MultivariateGaussian, StructureWorlds
from bayeswm.causal import counterfactual

SCHEMA = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], action=[bwm.Variable("a")], time_step=1.0)
ROOT = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)


def correlated(*, changing: float, turning: float = 0.0) -> StructureWorlds:
    """x' = 0.5 x + a + L eps, with L scaled by 1 + changing x and its correlation by 1 + turning x."""
    structure = bwm.structures.FromFunction(lambda x, a: 0.5 * x + a, schema=SCHEMA)

    def law(mean: Tensor, scale: object, *, parameters: object, inputs: tuple[Tensor, ...]) -> MultivariateGaussian:
        first = inputs[0][..., :1, None].expand(*mean.shape[:-1], 1, 1)
        root = ROOT * (1 + changing * first)
        root = torch.cat((root[..., :1], root[..., 1:] * (1 + turning * first)), -1)
        return MultivariateGaussian(mean, root)

    return StructureWorlds(
        structure, SCHEMA, {}, log_weight=torch.zeros(1).double(), exhaustive=True, law=law, noisy=None
    )


def factual() -> bwm.Trajectories:
    states = torch.tensor([[[0.5, 0.0], [1.0, 0.3], [0.2, -0.4]]], dtype=torch.float64)
    return bwm.Trajectories(SCHEMA, state=states, action=torch.zeros(1, 2, 1).double())


def test_the_same_covariance_everywhere_is_unique() -> None:
    found = counterfactual(correlated(changing=0.0), factual(), bwm.do(a=1.0))
    moved = torch.tensor([[1.0, 1.0], [1.5, 1.5]], dtype=torch.float64)
    torch.testing.assert_close(found.difference[0], moved)


def test_correlated_noise_that_changes_is_refused() -> None:
    with pytest.raises(bwm.NotInvertible, match="order in which noise enters"):
        counterfactual(correlated(changing=0.1), factual(), bwm.do(a=1.0))
    with pytest.raises(bwm.NotInvertible, match=r"step 1"):
        counterfactual(correlated(changing=0.0, turning=0.1), factual(), bwm.do(a=1.0))
    with pytest.raises(bwm.NotInvertible, match="order in which noise enters"):
        counterfactual(correlated(changing=0.1), factual(), bwm.do({"x": 2.0}, steps=1))
    # what was done returns what happened: both branches meet the same covariance
    same = counterfactual(correlated(changing=0.1), factual(), bwm.do(a=0.0))
    torch.testing.assert_close(same.mean, factual().states()[:, 1:])
