"""Networks with a gradient by hand, against ordinary autograd."""

import itertools

import pytest
import torch

from bayeswm.structures import networks
from bayeswm.structures.networks import Workspace, evaluate, layers, parameter_count, plain, run, run_back

SIZES = (3, 7, 5, 4)


def make(sizes=SIZES, *, members=2, rows=6, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    flat = torch.randn(members, parameter_count(sizes), generator=g, dtype=dtype) / max(sizes) ** 0.5
    return flat, torch.randn(members, rows, sizes[0], generator=g, dtype=dtype)


def by_hand(flat, x, sizes, by_outputs):
    """Outputs, gradient by flat and gradient by x through the reused buffers."""
    work = Workspace(flat, sizes, x.shape[1])
    out = run(flat, x, work).clone()
    by_x = torch.empty_like(x)
    work.out.copy_(by_outputs)
    run_back(flat, work, by_x)
    return out, work.gradient, by_x


def by_autograd(flat, x, sizes, by_outputs):
    flat, x = flat.clone().requires_grad_(), x.clone().requires_grad_()
    out = plain(flat, x, sizes)
    return (out.detach(), *torch.autograd.grad(out, (flat, x), by_outputs))


def pretend_onednn(monkeypatch, prefers):
    monkeypatch.setattr(networks, "_prefers_onednn", lambda: prefers)


def test_layers_are_views_that_fill_the_row():
    flat, _ = make()
    views = layers(flat, SIZES)
    assert [tuple(v.shape) for v in views] == [(2, i + 1, o) for i, o in itertools.pairwise(SIZES)]
    for number, view in enumerate(views):
        view.fill_(number)
    assert [int((flat == n).sum()) for n in range(len(views))] == [v.numel() for v in views]


def test_plain_is_the_network_written_out():
    flat, x = make((2, 3, 1), members=1, rows=1)
    w, b, v, c = flat[0, :6].view(2, 3), flat[0, 6:9], flat[0, 9:12], flat[0, 12]
    a = x[0, 0] @ w + b
    assert plain(flat, x, (2, 3, 1)).item() == pytest.approx(float((a * torch.sigmoid(a)) @ v + c), rel=1e-14)


@pytest.mark.parametrize("members", [1, 2, 7])
@pytest.mark.parametrize("rows", [1, 2, 17, 64])
@pytest.mark.parametrize("sizes", [(3, 4), SIZES, (1, 1, 1), (23, 70, 70, 34)])
def test_outputs_and_gradients_equal_autograd(members, rows, sizes):
    flat, x = make(sizes, members=members, rows=rows)
    by_outputs = torch.randn(members, rows, sizes[-1], generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    for mine, reference in zip(
        by_hand(flat, x, sizes, by_outputs), by_autograd(flat, x, sizes, by_outputs), strict=True
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(evaluate(flat, x, sizes), plain(flat, x, sizes), rtol=1e-12, atol=1e-12)


def test_buffers_are_reused_without_memory_of_the_last_step():
    flat, x = make()
    by_outputs = torch.ones(2, 6, 4, dtype=x.dtype)
    work = Workspace(flat, SIZES, 6)
    for other in (x.neg(), x):
        run(flat, other, work)
        work.out.copy_(by_outputs)
        run_back(flat, work)
    torch.testing.assert_close(work.gradient, by_autograd(flat, x, SIZES, by_outputs)[1], rtol=1e-12, atol=1e-12)


def test_first_and_second_derivatives_pass_the_numerical_check():
    flat, x = (v.requires_grad_() for v in make((2, 3, 2), rows=3))

    def network(flat, x):
        return evaluate(flat, x, (2, 3, 2))

    assert torch.autograd.gradcheck(network, (flat, x))
    assert torch.autograd.gradgradcheck(network, (flat, x))


@pytest.mark.parametrize("wanted", ["flat", "x"])
def test_gradient_by_one_argument_alone(wanted):
    flat, x = make()
    by_outputs = torch.ones(2, 6, 4, dtype=x.dtype)
    _, by_flat, by_x = by_autograd(flat, x, SIZES, by_outputs)
    argument = (flat if wanted == "flat" else x).requires_grad_()
    (found,) = torch.autograd.grad(evaluate(flat, x, SIZES), argument, by_outputs)
    torch.testing.assert_close(found, by_flat if wanted == "flat" else by_x, rtol=1e-12, atol=1e-12)


def test_second_backward_through_a_retained_graph_gives_the_same():
    flat, x = (v.requires_grad_() for v in make())
    out = evaluate(flat, x, SIZES).square().sum()
    first = torch.autograd.grad(out, (flat, x), retain_graph=True)
    second = torch.autograd.grad(out, (flat, x))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)


def test_outputs_stay_when_the_network_is_evaluated_again():
    flat, x = (v.requires_grad_() for v in make())
    first = evaluate(flat, x, SIZES)
    kept = first.detach().clone()
    evaluate(flat, -x, SIZES).sum().backward()
    assert torch.equal(first, kept)


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 64, 65])
@pytest.mark.parametrize("by_onednn", [False, True])
def test_chunks_of_rows_leave_no_seam(monkeypatch, rows, by_onednn):
    pretend_onednn(monkeypatch, by_onednn)
    monkeypatch.setattr(networks, "_ROWS", 32)
    sizes = (5, 20, 20, 6)
    flat, x = make(sizes, members=3, rows=rows, dtype=torch.float32)
    torch.testing.assert_close(evaluate(flat, x, sizes), plain(flat, x, sizes), rtol=1e-5, atol=1e-5)


def test_inputs_with_strides_of_their_own():
    flat, x = make(rows=12)
    for view in (x[:, ::2], x.mT.contiguous().mT, x[:, :1].expand(-1, 9, -1), x[:1].expand(2, -1, -1)):
        torch.testing.assert_close(evaluate(flat, view, SIZES), plain(flat, view, SIZES), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 100, 1500])
def test_onednn_gives_the_same_numbers(monkeypatch, rows):
    sizes = (23, 80, 80, 64)
    flat, x = make(sizes, members=2, rows=rows, dtype=torch.float32)
    by_outputs = torch.randn(2, rows, 64, generator=torch.Generator().manual_seed(1)) / rows
    found = {}
    for prefers in (False, True):
        pretend_onednn(monkeypatch, prefers)
        found[prefers] = (evaluate(flat, x, sizes), *by_hand(flat, x, sizes, by_outputs))
    for mkl, onednn in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(onednn, mkl, rtol=1e-5, atol=1e-5)


def test_maker_of_the_processor_decides(monkeypatch, tmp_path):
    def decide(text):
        path = tmp_path / "cpuinfo"
        path.write_text(text)
        monkeypatch.setattr(networks, "Path", lambda _: path)
        return networks._prefers_onednn.__wrapped__()

    assert not decide("vendor_id\t: GenuineIntel\n")
    assert decide("vendor_id\t: AuthenticAMD\n") == hasattr(torch.ops.mkldnn, "_linear_pointwise")
    monkeypatch.setattr(networks, "Path", lambda _: tmp_path / "absent")
    assert not networks._prefers_onednn.__wrapped__()
