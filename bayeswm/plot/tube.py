"""The tube of a forecast, that holds the whole trajectory, around the interval, that holds one step of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.predictive import Predictive
from bayeswm.plot.axes import BLUE, INK, axes_or_new, percent, plain, with_unit
from bayeswm.plot.rows import chosen_row, common_start, one_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeswm.diagnostics.tube import Tube


def tube_chart(
    predictive: Predictive,
    tube: Tube,
    variable: str,
    *,
    observed: Tensor | None = None,
    row: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the tube of one variable over time, inside it the central interval of the same level, and what came.

    The interval holds each step with its level, the tube the whole trajectory: what the two are apart is the price of
    a statement about all steps together. Of an ellipsoid the enclosing box is drawn.

    Parameters
    ----------
    predictive : Predictive
        A rollout.
    tube : Tube
        Made of it, with the same batch.
    variable : str
        Column to draw.
    observed : Tensor, shape (H, S), (H + 1, S) or with the batch axis in front, optional
        What came; with H + 1 rows the first is the start.
    row : int, optional
        Which entry of the batch; needed where there are several.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    UnknownVariableError, SpecError, DataError
        For an unknown variable, an unclear row, a tube of another shape or without an end, or observations of another
        shape.

    Examples
    --------
    >>> import torch, bayeswm as bwm
    >>> from matplotlib.figure import Figure
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> g = torch.Generator().manual_seed(0)
    >>> p = bwm.rollout(model, torch.zeros(2), torch.zeros(9, 1), particles=100, generator=g)
    >>> tube = bwm.diagnostics.SupT()(p, level=0.9)
    >>> [t.get_text() for t in tube_chart(p, tube, "angle", ax=Figure().subplots()).get_legend().get_texts()]
    ['90 % tube', '90 % interval of each step', 'mean']
    """
    column = predictive.variables.column(variable)
    unit = next(v.unit for v in predictive.variables for name in v.columns if name == variable)
    shape = (*predictive.batch_shape, predictive.horizon, predictive.variables.size)
    if tuple(tube.lower.shape) != shape:
        raise SpecError(f"expected a tube of shape {shape}, as the predictive has, got {tuple(tube.lower.shape)}")
    if predictive.horizon == 0:
        raise SpecError("expected a predictive over at least 1 step, got horizon 0; there is nothing to draw")
    observed = None if observed is None else one_record(predictive, observed, row)
    index = chosen_row(predictive, row)
    predictive = predictive if index is None else predictive[index]
    ends = [(end if index is None else end[index])[..., column] for end in (tube.lower, tube.upper)]
    if not all(bool(end.isfinite().all()) for end in ends):
        raise SpecError(f"expected a tube with finite ends of {variable!r}, got infinite ones; pass more particles")
    ax = axes_or_new(ax)

    steps = np.arange(predictive.horizon + 1) * predictive.time_step
    start = common_start(predictive, column)
    time = steps[1:] if start is None else steps

    def with_start(values: Tensor) -> np.ndarray:
        line = values.detach().cpu().double().numpy()
        return line if start is None else np.concatenate(([start], line))

    text = percent(tube.level)
    inner = [end[..., column] for end in predictive.interval(tube.level)]
    for (low, high), shade, label in ((ends, 0.18, f"{text} tube"), (inner, 0.32, f"{text} interval of each step")):
        ax.fill_between(time, with_start(low), with_start(high), color=BLUE, alpha=shade, linewidth=0, label=label)
    ax.plot(time, with_start(predictive.mean[..., column]), color=BLUE, linewidth=1.6, label="mean")
    if observed is not None:
        seen = observed[:, column].detach().cpu().double().numpy()
        at = steps[len(steps) - len(seen) :]
        ax.plot(at, seen, color=INK, linewidth=0.9, marker="o", markersize=2.6, label="observed")
    ax.set_xlabel("time (s)")
    ax.set_ylabel(with_unit(variable, unit))
    ax.margins(x=0.01)
    plain(ax)
    ax.legend(frameon=False, fontsize="small", handlelength=1.4, loc="best")
    return ax
