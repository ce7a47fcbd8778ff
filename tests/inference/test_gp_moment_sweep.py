"""Sums over pairs of points against dense products, for blocks of every size."""

import pytest
import torch

from bayeswm.inference import gp_moment_sweep
from bayeswm.inference.gp_moment_sweep import sweep

F64 = torch.float64


@pytest.mark.parametrize("chunk", [1, 7, 20, 49, 110, 10_000])
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_it_is_the_dense_product(monkeypatch, chunk, size):
    monkeypatch.setattr(gp_moment_sweep, "CHUNK", chunk)
    g = torch.Generator().manual_seed(0)
    left, right = (size * torch.randn(2, 3, 7, 4, generator=g, dtype=F64) for _ in range(2))
    by, row = torch.randn(2, 3, 7, 2, generator=g, dtype=F64), torch.randn(2, 3, 7, generator=g, dtype=F64)
    e = torch.expm1(left @ right.mT)
    out, column = torch.empty_like(by), torch.empty_like(row)
    sweep(left, right, by, small=size < 1e-2, out=out, back=(row, column))
    assert torch.allclose(out, e @ by, rtol=1e-12, atol=1e-14)
    assert torch.allclose(column, (row[..., None, :] @ e)[..., 0, :], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 7, 20, 49, 110, 10_000])
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_symmetric_blocks_with_weights(monkeypatch, chunk, size):
    monkeypatch.setattr(gp_moment_sweep, "CHUNK", chunk)
    g = torch.Generator().manual_seed(0)
    left = size * torch.randn(2, 3, 7, 4, generator=g, dtype=F64)
    by, by_q = (torch.randn(2, 3, 7, 2, generator=g, dtype=F64) for _ in range(2))
    c = torch.randn(3, 7, 7, generator=g, dtype=F64)
    c = c + c.mT
    e = torch.expm1(left @ left.mT)
    out, reduced = torch.empty_like(by), torch.empty_like(by)
    sweep(left, left, by, small=size < 1e-2, out=out, reduction=(c, by_q, reduced))
    assert torch.allclose(out, e @ by, rtol=1e-12, atol=1e-14)
    assert torch.allclose(reduced, (c * (e if size < 1e-2 else e + 1)) @ by_q, rtol=1e-12, atol=1e-13)
