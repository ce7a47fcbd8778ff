"""Triangular factors of singular covariances."""

import torch

from bayeswm.base import Gaussian, MultivariateGaussian
from bayeswm.causal.confounding.roots import root_of, triangular


def test_triangular_factor_of_a_singular_root():
    root = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 1.0, 3.0]]).double()
    lower = triangular(root)
    torch.testing.assert_close(lower @ lower.mT, root @ root.mT)
    assert lower.diagonal().tolist()[0] == 0.0
    assert float(lower.triu(1).abs().max()) == 0.0


def test_roots_of_laws():
    scale = torch.tensor([0.5, 0.0]).double()
    law = Gaussian(torch.zeros(1, 1, 2).double(), scale)
    assert torch.equal(root_of(law)[0, 0], scale.diag())
    lower = torch.tensor([[1.0, 0.0], [2.0, 3.0]]).double()
    assert torch.equal(root_of(MultivariateGaussian(torch.zeros(1, 1, 2).double(), lower))[0, 0], lower)
