import torch
from hypothesis import given
from hypothesis import strategies as st

from bayeswm.inference import stack


def test_the_best_of_several_gets_all_weight():
    log_prob = torch.tensor([[0.0, 0.0, 0.0], [-1.0, -2.0, -3.0]])
    torch.testing.assert_close(stack(log_prob).exp(), torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-6, rtol=0)


def test_two_specialists_share_by_how_often_each_is_right():
    # member 0 explains 3 of 4 outcomes, member 1 the other: the optimum of 3 log w + log(1 - w) is w = 3/4
    log_prob = torch.tensor([[0.0, 0.0, 0.0, -50.0], [-50.0, -50.0, -50.0, 0.0]])
    weight = stack(log_prob).exp()
    torch.testing.assert_close(weight, torch.tensor([0.75, 0.25], dtype=torch.float64), atol=1e-6, rtol=0)


@given(st.integers(1, 6), st.integers(1, 20), st.integers(0, 2**31))
def test_weights_never_score_worse_than_equal_ones_and_sum_to_one(members, n, seed):
    log_prob = 3 * torch.randn(members, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    log_weight = stack(log_prob)
    assert abs(float(log_weight.exp().sum()) - 1) < 1e-9

    def score(weight):
        return float(torch.logsumexp(log_prob + weight[:, None], 0).mean())

    assert score(log_weight) >= score(torch.full((members,), -torch.log(torch.tensor(float(members))))) - 1e-9
