"""The report of positivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bayeswm.base.errors import SupportWarning
from bayeswm.base.predictive import warn_caller

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False, repr=False)
class Positivity:
    """How far an intervention stays inside the support of a log.

    Attributes
    ----------
    dataset : xarray.Dataset
        By ``horizon``, where h is the step that leads to x[h]:

        * ``inside``: share of the states and actions that are no farther from the log than its own recordings are from
          each other; the level if the intervention does what the log did, lower is worse;
        * ``distance``: median distance to the nearest row of the log, in units of that radius; lower is better;
        * ``effective_rows``: effective sample size of the log's rows (of 2,048 of them, evenly spaced, in a longer
          log) when they are weighed to look like the intervention's; higher is better;
        * ``epistemic_growth`` (and by ``variable``): epistemic variance of the next state there, over that at the log's
          rows; about 1 is as good as on the log, NaN where worlds do not differ;
        * ``supported``: whether the share inside is at most 0.15 below the level and 20 rows or more count.
    """

    dataset: xarray.Dataset

    @property
    def supported(self) -> bool:
        """Whether no step is thinly supported."""
        return bool(self.dataset["supported"].all())

    @property
    def text(self) -> str:
        """How it stands, in a sentence."""
        d = self.dataset
        worst = f"{100 * float(d.inside.min()):.0f} % inside, {float(d.effective_rows.min()):.0f} effective rows"
        if self.supported:
            return f"inside the log's support at all {d.sizes['horizon']} steps (at worst {worst})"
        thin = ~d["supported"].values
        first = int(d["horizon"].values[thin.argmax()])
        return (
            f"thin support at {int(thin.sum())} of {d.sizes['horizon']} steps, first at step {first} (at worst {worst})"
        )

    def __repr__(self) -> str:
        d = self.dataset
        lines = [f"Positivity: {self.text}", f"{'step':>6}{'inside':>9}{'distance':>10}{'rows':>9}{'growth':>9}"]
        growth = d.epistemic_growth.max("variable").values
        for i in _few(d.sizes["horizon"]):
            if i is None:
                lines.append("   ...")
                continue
            row = (int(d.horizon[i]), *(float(v[i]) for v in (d.inside, d.distance, d.effective_rows)), growth[i])
            lines.append("{:6d}{:8.0f}%{:10.2f}{:9.0f}{:9.3g}".format(row[0], 100 * row[1], *row[2:]))
        return "\n".join(lines)


def warn_of_thin_support(found: Positivity, what: str) -> None:
    """Warn that an answer is extrapolation."""
    warn_caller(
        f"{what}: {found.text}; what the model says there is extrapolation: stay closer to the log, shorten the "
        "horizon, or log what the intervention does",
        SupportWarning,
    )


def _few(count: int) -> list[int | None]:
    """Return indices to show: all of a few, else the first and the last."""
    return list(range(count)) if count <= 8 else [0, 1, 2, None, *range(count - 3, count)]
