import pytest
import torch

import bayeswm as bwm
from bayeswm.causal.sensitivity.tipping import _first, _quantile, least_strength
from tests.causal.confounded_logs import NAIVE, confounded_log, known


def test_an_answer_that_no_gain_reaches_and_one_that_is_nothing(generator: torch.Generator) -> None:
    """The answer is the gain of the corrected worlds, sqrt(q^2 / (1 - q)), against a threshold."""
    log, worlds = confounded_log(20, 10, generator=generator), known(**NAIVE).draw(1)
    ask = {"action": None, "outcome": None, "level": 0.9, "question": "gain"}

    def gain(worlds: bwm.causal.CorrectedWorlds) -> torch.Tensor:
        return worlds.gain

    # q^2 / (1 - q) = 0.25 at q = (-0.25 + (0.0625 + 1)^0.5) / 2
    found = least_strength(lambda w: gain(w) - 0.5, worlds, log, **ask)
    assert found.strength == pytest.approx((-0.25 + 1.0625**0.5) / 2, abs=1e-5)
    assert (found.sign, found.value) == (1, -0.5)
    other = least_strength(lambda w: gain(w) + 0.5, worlds, log, **ask)
    assert (other.sign, other.strength) == (-1, pytest.approx(found.strength))
    never = least_strength(lambda w: gain(w) - 100, worlds, log, **ask)
    assert (never.strength, never.lower, never.sign) == (1.0, 1.0, 0)
    nothing = least_strength(gain, worlds, log, **ask)
    assert nothing.strength == 0.0


def test_first_rows_and_weighted_quantiles() -> None:
    changed = torch.tensor([[False, False, True], [True, False, True]])
    assert _first(changed).tolist() == [1, 2, 0]
    values, weight = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0.2, 0.5, 0.3])
    assert [_quantile(values, weight, p) for p in (0.4, 0.5, 0.6, 0.9)] == [1.0, 1.0, 2.0, 3.0]
