"""What all pictures share: the Axes to draw on, colours, and names with units."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

try:
    import_module("matplotlib")
except ModuleNotFoundError as error:
    if error.name is None or error.name.split(".")[0] != "matplotlib":
        raise  # matplotlib is there; something that it needs is not
    raise ImportError(
        "expected the package 'matplotlib' for bayeswm.plot, which is missing; pip install 'bayeswm[plots]'"
    ) from None

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

# Okabe and Ito (2008): told apart with any colour vision
BLUE, AMBER = "#0072B2", "#E69F00"
CYCLE = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#56B4E9", AMBER)
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, QUIET = "#222222", "#8A8A8A"


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the Axes to draw on: the given one, or that of a new figure of pyplot's, which shows it as usual.

    Nothing else of pyplot changes: neither its settings nor its backend.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> mine = Figure().subplots()
    >>> axes_or_new(mine) is mine
    True
    """
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(6.0, 3.6), layout="constrained")[1]


def plain(ax: Axes) -> None:
    """Take away the frame's upper and right side, which carry nothing.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> mine = Figure().subplots()
    >>> plain(mine)
    >>> mine.spines["top"].get_visible()
    False
    """
    ax.spines[["top", "right"]].set_visible(False)


def with_unit(name: str, unit: str) -> str:
    """Return a label such as ``angle (rad)``; without a unit the name alone.

    Examples
    --------
    >>> with_unit("angle", "rad"), with_unit("share", "")
    ('angle (rad)', 'share')
    """
    return f"{name} ({unit})" if unit else name


def percent(level: float) -> str:
    """Return a level as text, without digits that say nothing.

    Examples
    --------
    >>> percent(0.9), percent(0.975)
    ('90 %', '97.5 %')
    """
    return f"{100 * level:g} %"


def variables_of(dataset: xr.Dataset) -> list[str]:
    """Return the names of the variables of a data set of diagnostics.

    Examples
    --------
    >>> import xarray as xr
    >>> variables_of(xr.Dataset(coords={"variable": ["angle"]}))
    ['angle']
    """
    return [str(name) for name in dataset["variable"].values]


def style(index: int) -> dict[str, str]:
    """Return colour and marker of the variable of that number: both differ, for print without colour.

    Examples
    --------
    >>> style(0)
    {'color': '#0072B2', 'marker': 'o'}
    """
    return {"color": CYCLE[index % len(CYCLE)], "marker": MARKERS[index % len(MARKERS)]}
