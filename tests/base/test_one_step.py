import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Gaussian, MultivariateGaussian, SpecError, Transitions, one_step
from bayeswm.base.one_step import in_blocks, log_prob_by_column, predict_by_column, transition_law
from bayeswm.base.random import make_generator
from bayeswm.structures import Pendulum

F64 = torch.float64


def steps(n: int = 6) -> Transitions:
    g = make_generator(0)
    state, after = (torch.randn(n, 2, generator=g, dtype=F64) for _ in range(2))
    return Transitions(state, torch.zeros(n, 1, dtype=F64), torch.zeros(n, 0), after, torch.zeros(n), torch.arange(n))


def test_columns_add_up_to_the_log_prob_of_a_predictive() -> None:
    model, data = bwm.KnownDynamics(structure=Pendulum(), noise={"angle": 0.3, "velocity": 1.0}), steps()
    found = log_prob_by_column(transition_law(model.draw(1), data), data, ["angle", "velocity"])
    expected = model.predictive(data.state, data.action).log_prob(data.next_state)
    torch.testing.assert_close((found["angle"] + found["velocity"])[0], expected)


def test_dependent_columns_are_scored_jointly() -> None:
    data = steps()
    tril = torch.tensor([[1.0, 0.0], [0.9, 0.5]], dtype=F64)
    found = log_prob_by_column(MultivariateGaussian(data.state[None, None], tril), data, ["x", "v"])
    expected = torch.distributions.MultivariateNormal(data.state, scale_tril=tril).log_prob(data.next_state)
    assert list(found) == ["state"]
    torch.testing.assert_close(found["state"][0], expected)


def test_predictions_are_one_push_of_each_world_and_transition() -> None:
    law = Gaussian(torch.zeros(3, 1, 6, 2, dtype=F64), torch.tensor([1.0, 0.0], dtype=F64))
    found = predict_by_column(law, ["x", "v"], make_generator(0))
    assert found["x"].shape == (3, 6)
    assert len(found["x"].unique()) == 18
    assert bool((found["v"] == 0).all())


def test_blocks_cover_all_worlds_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_step, "_BLOCK", 30)
    sizes: list[int] = []

    def answer(part: slice) -> dict[str, torch.Tensor]:
        values = torch.arange(25)[part]
        sizes.append(len(values))
        return {"x": values}

    assert in_blocks(answer, 25, 3)["x"].tolist() == list(range(25))
    assert sizes == [10, 10, 5]


def test_what_memory_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_step, "available_memory", lambda: 2**20)
    with pytest.raises(SpecError, match=r"fits into memory.*draws="):
        in_blocks(lambda part: {}, 1000, 1000)
