import numpy as np
import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal import effect, group_effects
from tests.causal.reference_models import c3

STARTS = torch.tensor([[-2.0], [-1.0], [3.0], [0.5]], dtype=torch.float64)


def scaled(*, noise: float = 0.0) -> bwm.KnownDynamics:
    """x' = g x a with g ~ N(1, 0.5)."""
    structure = bwm.structures.FromFunction(
        lambda x, a, c, p: p["g"] * x * a, schema=c3().schema, parameters={"g": Normal(1.0, 0.5)}
    )
    return bwm.KnownDynamics(structure=structure, noise=noise)


def test_averages_over_groups_are_those_of_the_starts(generator: torch.Generator) -> None:
    given = {"state": STARTS, "horizon": 2, "worlds": 50, "particles": 5}
    push, rest = bwm.do(a=1.0), bwm.do(a=0.5)
    seed = torch.Generator().manual_seed(0)
    each = effect(scaled(noise=0.1), push, rest, generator=seed, **given)
    labels = np.array(["low", "low", "high", "high"])
    found = group_effects(scaled(noise=0.1), push, rest, by=labels, generator=generator, **given)
    assert found.group.values.tolist() == ["high", "low"]
    assert found["count"].values.tolist() == [2, 2]
    for name, rows in (("low", [0, 1]), ("high", [2, 3])):
        np.testing.assert_allclose(found.effect.sel(group=name), each.effect.isel(batch_0=rows).mean("batch_0"))


@pytest.mark.statistical
def test_intervals_of_groups_are_over_worlds(generator: torch.Generator) -> None:
    found = group_effects(
        scaled(),
        bwm.do(a=1.0),
        bwm.do(a=0.0),
        by=lambda x: x[:, 0] > 0,
        state=STARTS,
        horizon=1,
        worlds=4000,
        particles=1,
        generator=generator,
    ).isel(horizon=0, variable=0)
    # the effect in a world is g times the mean of the group: -1.5 or 1.75; the quantile's error as in test_effects
    error = (0.05 * 0.95 / 4000) ** 0.5 / 0.2063
    for group, mean in ((False, -1.5), (True, 1.75)):
        low, high = sorted(mean * (1 + s * 0.5 * 1.6449) for s in (-1, 1))
        assert abs(found.lower.sel(group=group).item() - low) < 4.5 * error * abs(mean)
        assert abs(found.upper.sel(group=group).item() - high) < 4.5 * error * abs(mean)
    positive = found.probability_positive.values
    assert positive.sum() == pytest.approx(1.0)


def test_what_is_refused(generator: torch.Generator) -> None:
    push, rest = bwm.do(a=1.0), bwm.do(a=0.0)
    for by, state, match in (
        ([0, 1], STARTS, "one group for each"),
        ([0.0, float("nan"), 1.0, 1.0], STARTS, "NaN"),
        ([0], torch.zeros(1), r"\(N, S\)"),
    ):
        with pytest.raises(bwm.DataError, match=match):
            group_effects(scaled(), push, rest, by=by, state=state, horizon=1, generator=generator)
