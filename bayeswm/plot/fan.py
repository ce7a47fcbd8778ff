"""The fan of a forecast: how far it may go, and what of that more data would remove."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.errors import SpecError, UndefinedWarning
from bayeswm.base.predictive import Predictive
from bayeswm.plot.axes import AMBER, BLUE, INK, axes_or_new, percent, plain, with_unit
from bayeswm.plot.rows import chosen_row, common_start, one_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def fan_chart(
    predictive: Predictive,
    variable: str,
    *,
    observed: Tensor | None = None,
    row: int | None = None,
    levels: Sequence[float] = (0.5, 0.9),
    ax: Axes | None = None,
) -> Axes:
    """Draw the central intervals of one variable over time, and inside them the epistemic part.

    The blue bands are the whole predictive. The amber one is the widest of them, drawn in towards the mean by the ratio
    of the epistemic to the total standard deviation: where the mean could lie for want of knowledge. It would vanish
    with enough data; the rest of the blue would stay. It is left out where nothing is epistemic, or that is undefined.

    Parameters
    ----------
    predictive : Predictive
        A rollout.
    variable : str
        Column to draw.
    observed : Tensor, shape (H, S), (H + 1, S) or with the batch axis in front, optional
        What came; with H + 1 rows the first is the start.
    row : int, optional
        Which entry of the batch; needed where there are several.
    levels : sequence of float
        Of the intervals.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    UnknownVariableError, SpecError, DataError
        For an unknown variable, an unclear row, or observations of another shape.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from matplotlib.figure import Figure
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> p = bwm.rollout(model, torch.zeros(2), torch.zeros(9, 1), generator=torch.Generator().manual_seed(0))
    >>> fan_chart(p, "angle", ax=Figure().subplots()).get_ylabel()
    'angle (rad)'
    """
    column = predictive.variables.column(variable)
    unit = next(v.unit for v in predictive.variables for name in v.columns if name == variable)
    if not levels or not all(0 < level < 1 for level in levels):
        raise SpecError(f"expected levels between 0 and 1, got {levels}; 0.9 is a 90 % interval")
    if predictive.horizon == 0:
        raise SpecError("expected a predictive over at least 1 step, got horizon 0; there is nothing to draw")
    levels = sorted(levels, reverse=True)
    observed = None if observed is None else one_record(predictive, observed, row)
    index = chosen_row(predictive, row)
    predictive = predictive if index is None else predictive[index]
    ax = axes_or_new(ax)

    steps = np.arange(predictive.horizon + 1) * predictive.time_step
    start = common_start(predictive, column)
    time = steps[1:] if start is None else steps

    def with_start(values: Tensor) -> np.ndarray:
        line = values[..., column].detach().cpu().double().numpy()
        return line if start is None else np.concatenate(([start], line))

    intervals = [predictive.interval(level) for level in levels]
    for i, (level, (low, high)) in enumerate(zip(levels, intervals, strict=True)):
        shade = 0.16 + 0.22 * i / max(len(levels) - 1, 1)
        ax.fill_between(
            time,
            with_start(low),
            with_start(high),
            color=BLUE,
            alpha=shade,
            linewidth=0,
            label=f"{percent(level)} interval",
        )
    mean = with_start(predictive.mean)
    share = _epistemic_share(predictive)
    if share is not None and float(share[..., column].max()) > 0:
        low, high = (with_start(predictive.mean + share * (end - predictive.mean)) for end in intervals[0])
        text = f"epistemic part ({percent(levels[0])})"
        ax.fill_between(time, low, high, color=AMBER, alpha=0.7, linewidth=0, label=text)
    ax.plot(time, mean, color=BLUE, linewidth=1.6, label="mean")
    if observed is not None:
        seen = observed[:, column].detach().cpu().double().numpy()
        at = steps[len(steps) - len(seen) :]
        ax.plot(at, seen, color=INK, linestyle="none", marker="o", markersize=2.6, label="observed")
    ax.set_xlabel("time (s)")
    ax.set_ylabel(with_unit(variable, unit))
    ax.margins(x=0.01)
    plain(ax)
    ax.legend(frameon=False, fontsize="small", handlelength=1.4, loc="best")
    return ax


def _epistemic_share(predictive: Predictive) -> Tensor | None:
    """Return the ratio of the epistemic to the total standard deviation, or None where it is undefined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)  # the picture shows that by leaving the band out
        part, total = predictive.epistemic_variance, predictive.variance
    return None if bool(part.isnan().any()) else (part / total.clamp(min=torch.finfo(total.dtype).tiny)).sqrt()
