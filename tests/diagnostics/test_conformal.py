"""Conformal recalibration keeps its guarantee for finitely many recordings, whatever the model."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.predictive import Predictive
from bayeswm.base.schema import Variables
from bayeswm.diagnostics import ConformalisedQuantile, Forecast, SplitConformal, SupT, conformal_quantile, forecast_of
from bayeswm.diagnostics.maps import Stretch


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.sampled_from([0.5, 0.75, 0.8, 0.9]))
def test_order_statistic(values: list[int], level: float) -> None:
    scores, n = torch.tensor(values).double(), len(values)
    k = math.ceil((n + 1) * level - 1e-9)
    if k > n:
        with pytest.raises(bwm.DataError, match=f"{math.ceil(level / (1 - level) - 1e-9)} recordings or more"):
            conformal_quantile(scores, level, recording=torch.arange(n))
        return
    assert float(conformal_quantile(scores, level, recording=torch.arange(n))) == sorted(values)[k - 1]


def test_recordings_weigh_alike_and_missing_windows_do_not_count() -> None:
    # three recordings of weight 1/4 each; the first has three windows of 1/12
    scores = torch.tensor([[1.0, 9.0], [2.0, 1.0], [3.0, 2.0], [4.0, math.nan], [5.0, 3.0]])
    recording = torch.tensor([7, 7, 7, 2, 3])
    # reached: 1/12, 2/12, 3/12, 6/12, 9/12; in the second column two recordings of 1/3: 1/9, 2/9, then 5/9, 6/9
    assert conformal_quantile(scores, 0.5, recording=recording).tolist() == [4.0, 3.0]
    assert conformal_quantile(scores, 0.2, recording=recording).tolist() == [3.0, 2.0]


def walks(*, n: int, steps: int, seed: int, draws: int, share: float, heavy: bool) -> Forecast:
    """Random walks, forecast by walks of another step size, with normal or heavy-tailed steps."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, steps, 1, generator=g, dtype=torch.float64)
    if heavy:  # Student-t with 2 degrees of freedom: a variance that is infinite
        chi = torch.randn(n, steps, 2, generator=g, dtype=torch.float64).square().mean(-1, keepdim=True)
        noise = noise / chi.sqrt()
    z = torch.randn(1, draws, 1, steps, 1, generator=g, dtype=torch.float64).expand(1, draws, n, steps, 1)
    paths = share * z.cumsum(-2)
    laws = [bwm.Gaussian(paths[..., h, :]) for h in range(steps)]
    p = Predictive(
        Variables([bwm.Variable("x")]),
        laws,
        torch.zeros(1).double(),
        exhaustive=True,
        time_step=1.0,
        particles=paths.movedim(-2, 0),
        resolved=[False] * steps,
    )
    return forecast_of(p, noise.cumsum(-2))


def pieces(part: Forecast, size: int) -> list[Forecast]:
    cuts = [slice(i, i + size) for i in range(0, len(part.outcomes), size)]
    return [Forecast(part.predictive[c], part.outcomes[c], part.recording[c]) for c in cuts]


def in_tube(p: Predictive, x: Tensor, level: float) -> Tensor:
    tube = SupT()(p, level=level)
    center = 0.5 * (tube.lower + tube.upper)
    return tube.contains(center + (x - center) * (1 - 1e-9))  # one trajectory lies on the rim, but for rounding


def test_the_tube_is_that_of_the_recalibrated_model() -> None:
    part = walks(n=60, steps=4, seed=0, draws=200, share=0.4, heavy=True)
    way = SplitConformal(level=0.8)
    fitted = way.fit(part)
    assert isinstance(fitted, Stretch)
    held = in_tube(fitted(part.predictive), part.outcomes, 0.8)
    assert int(held.sum()) == math.ceil(61 * 0.8)  # the k smallest of 60 scores
    needed = way.needed(part)["needed"]
    assert torch.allclose(needed.sort().values[48], fitted.tensors["factor"][0, 0])


@pytest.mark.statistical
@pytest.mark.parametrize("heavy", [False, True])
def test_guarantee_of_the_tube(heavy: bool) -> None:
    n, repetitions, level = 39, 1000, 0.9
    # all windows share the forecast, so that one call scores all repetitions: (n + 1) windows each
    part = walks(n=repetitions * (n + 1), steps=6, seed=1, draws=100, share=0.5, heavy=heavy)
    chunks = pieces(part, 4000)
    needed = torch.cat([SplitConformal(level).needed(c)["needed"] for c in chunks]).view(repetitions, n + 1)
    factor = conformal_quantile(needed[:, :-1].T, level, recording=torch.arange(n))
    covered = float((needed[:, -1] <= factor).double().mean())
    error = math.sqrt(0.09 / repetitions)
    assert level - 2.5 * error <= covered <= level + 1 / (n + 1) + 2.5 * error


@pytest.mark.statistical
def test_guarantee_of_intervals() -> None:
    n, repetitions, level = 59, 1000, 0.9
    part = walks(n=repetitions * (n + 1), steps=2, seed=2, draws=100, share=0.5, heavy=True)
    way = ConformalisedQuantile(level)
    chunks = [way.needed(piece) for piece in pieces(part, 4000)]
    missed = torch.zeros(repetitions, 2, dtype=torch.bool)
    for end in ("lower", "upper"):
        needed = torch.cat([c[end] for c in chunks])[..., 0].view(repetitions, n + 1, 2).movedim(0, 1)
        factor = conformal_quantile(needed[:-1], 0.5 + level / 2, recording=torch.arange(n))
        missed |= needed[-1] > factor
    covered = 1 - missed.double().mean(0)
    error = math.sqrt(0.09 / repetitions)
    # each end misses at most 0.05 and at least 0.05 - 1 / (n + 1)
    assert bool((covered >= level - 3 * error).all())
    assert bool((covered <= level + 2 / (n + 1) + 3 * error).all())


def test_intervals_are_those_of_the_recalibrated_model() -> None:
    part = walks(n=80, steps=3, seed=3, draws=101, share=0.5, heavy=False)
    after = ConformalisedQuantile(0.8).fit(part)(part.predictive)
    low, high = after.interval(0.8)
    inside = (part.outcomes >= low - 1e-9) & (part.outcomes <= high + 1e-9)
    # ceil(81 * 0.9) = 73 of 80 above the lower end, and as many below the upper one
    assert ((part.outcomes >= low - 1e-9).sum(0) == 73).all()
    assert ((part.outcomes <= high + 1e-9).sum(0) == 73).all()
    assert (inside.sum(0) == 66).all()


def test_requests_that_make_no_sense() -> None:
    with pytest.raises(bwm.DataError, match="one recording a window"):
        conformal_quantile(torch.zeros(3), 0.5, recording=torch.zeros(2))
    with pytest.raises(bwm.SpecError, match="level"):
        ConformalisedQuantile(level=1.5)
    with pytest.raises(bwm.DataError, match=r"9 recordings or more for a level of 0\.9, got 8"):
        SplitConformal().fit(walks(n=8, steps=2, seed=0, draws=20, share=1.0, heavy=False))
