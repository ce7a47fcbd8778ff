"""What a report says in words."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayeswm.diagnostics.trust import at_level, coverage_is_off

# recordings below which a bootstrap of them tells little
_FEW = 10


def verdict(dataset: xr.Dataset, *, level: float) -> str:
    """Return a report's findings as sentences with numbers, a line for each variable and one for all together.

    When a coverage is called too low or too high, and where the trust horizon ends, is the rule of
    :func:`bayeswm.diagnostics.trust_horizon`. That its standard errors rest on fewer than 10 recordings is said.

    Parameters
    ----------
    dataset : xarray.Dataset
        With what :func:`bayeswm.diagnostics.calibration` gives; ``tube_coverage`` too if there is one.
    level : float
        One of its levels.

    Returns
    -------
    str

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.05)
    >>> g = torch.Generator().manual_seed(0)
    >>> data = bwm.data.simulate(truth, torch.zeros(200, 2), torch.zeros(3, 1), generator=g)
    >>> found = bwm.diagnostics.calibration(truth, data, horizon=3)
    >>> print(verdict(found, level=0.9).splitlines()[0])
    angle: 90 % intervals hold at all 3 steps (0.15 s; 90 % to 92 % inside).
    """
    at, off = at_level(dataset, level), coverage_is_off(dataset, level=level)
    names = dataset["variable"].values
    lines = [_line(at.sel(variable=name), off.sel(variable=name).values, level=level) for name in names]
    few = int(dataset.attrs["recordings"])
    if 1 < few < _FEW:
        lines.append(f"All this rests on {few} recordings only.")
    together: list[str] = []
    if "tube_coverage" in dataset:
        inside, low, high = (float(dataset[f"tube_coverage{end}"]) for end in ("", "_lower", "_upper"))
        text = f"{_share(inside)} of whole trajectories inside their {_share(level)} tubes"
        together.append(text + (f" ({_share(low)} to {_share(high)})" if np.isfinite(low) else ""))
    if "calibration_p_value" in dataset.attrs:
        p = float(dataset.attrs["calibration_p_value"])
        together.append(f"calibration over all steps: p = {p:.2g}" if p >= 1e-3 else "calibration refuted, p < 0.001")
    if together:
        sentence = "; ".join(together)
        lines.append(sentence[0].upper() + sentence[1:] + ".")
    return "\n".join(lines)


def _line(at: xr.Dataset, wrong: np.ndarray, *, level: float) -> str:
    name, steps, time = str(at["variable"].item()), at["horizon"].values, at["time"].values
    value, error = at["coverage"].values, at["coverage_se"].values
    begin = f"{name}: {_share(level)} intervals "
    if not np.isfinite(error).any():
        inside = " and ".join(_share(v) for v in value[[0, -1]])
        return f"{begin}cannot be judged from a single recording ({inside} inside at the first and the last step)."
    if not wrong.any():
        among = f"{_share(value.min())} to {_share(value.max())} inside"
        return f"{begin}hold at all {len(steps)} steps ({time[-1]:.3g} s; {among})."
    first = int(wrong.argmax())
    kind = "too narrow" if value[first] < level else "too wide"
    where = "the first step" if first == 0 else f"step {steps[first]} ({time[first]:.3g} s)"
    held = "" if first == 0 else f"; trust horizon {time[first - 1]:.3g} s"
    rest = wrong[first:]
    until = " on" if rest.all() else f", at {int(rest.sum())} of {len(rest)} steps from there"
    worst = first + int(np.abs(value[first:] - level).argmax())
    most = "" if worst == first else f", {_share(value[worst])} at {time[worst]:.3g} s"
    return f"{begin}are {kind} from {where}{until} ({_share(value[first])} inside{most}){held}."


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"
