"""Monitoring of a deployed model: evidence against its coverage that may be looked at after every step."""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.predictive import Predictive
from bayeswm.base.schema import Variable, Variables
from bayeswm.diagnostics.forecast import Forecasts, gather
from bayeswm.diagnostics.intervals import quantiles
from bayeswm.diagnostics.levels import check_level
from bayeswm.diagnostics.pointwise import central, pit
from bayeswm.diagnostics.summary import horizon_coords

# alternatives that are bet on, on either side
_BETS = 12


class Monitor:
    r"""Bets against the coverage of a model's forecasts, by horizon; raises an alarm where the winnings are too large.

    A forecast issued at time t that is calibrated, given all that was known then, holds the outcome h steps later with
    probability q, the level. Betting at those odds multiplies a capital by p / q after a hit and (1 - p) / (1 - q)
    after a miss. Capital is spread over coverages p above and below q and q itself. Half of it stays on its bets, for
    small deviations that last; of the other half a small share is spread anew after each outcome, so that a change that
    comes late finds some on the bets that then win. Nobody can expect the whole to grow, but it does exponentially
    where coverage is not q. (With a tolerance, odds are those of the nearest coverage that is tolerated.)

    Forecasts of horizon h overlap. Those issued h steps apart do not: they make h separate games, each a test
    martingale with respect to what was known at its own times of issue. An average of these is no martingale of all
    that is known, because a game in progress shows how it will end. So each game counts by its largest capital so far,
    adjusted for having looked back, A(e) = (e - 1 - log e) / log(e)^2; averages over games, variables and horizons of
    such values have an expectation of at most 1 whenever one looks. Horizon 1 has one game without overlap, which
    counts as it is. Hence, whatever the dependence, for a calibrated model

    .. math:: P(\text{evidence} \ge 1 / \alpha \text{ at any time}) \le \alpha.

    Parameters
    ----------
    horizon : int
        Steps of the forecasts.
    level : float
        Of the central intervals that are watched.
    false_alarm : float
        Probability at most that a calibrated model ever causes an alarm.
    tolerance : float
        Coverages within it of the level are no reason for an alarm. Models that are deployed for long are never
        exactly calibrated, and intervals of n draws cover about 0.6 / n less than they say.
    switching : float
        Share of the moving half that is spread anew after each outcome: about one over the number of outcomes in which
        a change is expected.
    horizons : sequence of int, optional
        Those that count for the alarm; all by default. Few are faster: their evidence is averaged.

    References
    ----------
    Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting; Dawid, de Rooij, Shafer,
    Shen, Vereshchagin and Vovk (2011), Insuring against loss of evidence in game-theoretic probability; Henzi and
    Ziegel (2022), Valid sequential inference on probability forecast performance; Herbster and Warmuth (1998),
    Tracking the best expert.

    Examples
    --------
    Forecasts two steps ahead by a model of half the noise, under a fixed action:

    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.2)
    >>> model = bwm.KnownDynamics(structure=truth.structure, noise=0.1)
    >>> g = torch.Generator().manual_seed(0)
    >>> path = bwm.rollout(truth, torch.zeros(2), torch.zeros(60, 1), particles=1, generator=g).particles[0, 0]
    >>> monitor = Monitor(horizon=2)
    >>> for state in path:
    ...     ahead = bwm.rollout(model, state, torch.zeros(2, 1), particles=400, generator=g)
    ...     evidence = monitor.update(ahead, state)
    >>> monitor.alarm, evidence > 20
    (True, True)
    """

    def __init__(
        self,
        *,
        horizon: int,
        level: float = 0.9,
        false_alarm: float = 0.05,
        tolerance: float = 0.0,
        switching: float = 0.01,
        horizons: tuple[int, ...] | None = None,
    ) -> None:
        check_level(level)
        if horizon < 1:
            raise SpecError(f"expected horizon >= 1, got {horizon}")
        if not 0 < false_alarm < 1:
            raise SpecError(f"expected false_alarm between 0 and 1, got {false_alarm}")
        if not 0 <= tolerance < min(level, 1 - level):
            raise SpecError(f"expected a tolerance from 0 to below {min(level, 1 - level):g}, got {tolerance}")
        if not 0 <= switching < 1:
            raise SpecError(f"expected switching from 0 to below 1, got {switching}")
        counted = tuple(range(1, horizon + 1)) if horizons is None else tuple(horizons)
        if not counted or not all(1 <= h <= horizon for h in counted):
            raise SpecError(f"expected horizons from 1 to {horizon}, got {horizons}")
        self.horizon, self.level, self.false_alarm, self.tolerance = horizon, level, false_alarm, tolerance
        self.switching, self.horizons = switching, counted
        # one half of the bets stays, the other moves
        self._hit, self._miss = (v.repeat(2) for v in _odds(level, tolerance))
        self._log_capital: Tensor | None = None  # (*batch, H, phases, S, bets)
        self._largest = torch.empty(0)  # (*batch, H, phases, S)
        self._evidence: list[Tensor] = []
        self._inside: list[Tensor] = []
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._variables: Variables | None = None
        self._time_step = float("nan")

    def update(self, predictive: Predictive, state: Tensor) -> float:
        """Take in one time step, and return the evidence: :meth:`observe` for a system at work.

        Parameters
        ----------
        predictive : Predictive
            The forecast issued now, without batch axes; of any horizon up to the monitor's.
        state : Tensor, shape (S,)
            What is measured now, before the forecast: the outcome of those issued earlier. NaN where it is missing.

        Raises
        ------
        DataError
            If shapes do not fit.
        """
        if predictive.batch_shape or predictive.horizon != self.horizon:
            raise DataError(
                f"expected a forecast of {self.horizon} step(s) without batch axes, got {predictive.horizon} step(s) "
                f"of batch {predictive.batch_shape}"
            )
        x = torch.as_tensor(state)
        if tuple(x.shape) != (predictive.variables.size,):
            raise DataError(f"expected a state of shape ({predictive.variables.size},), got {tuple(x.shape)}")
        due = torch.full((self.horizon, predictive.variables.size), float("nan"), dtype=torch.float64)
        for h, (low, high) in enumerate(self._pending):
            due[h] = _inside(x.to(low), low[h], high[h])
        tails = [0.5 - self.level / 2, 0.5 + self.level / 2]
        low, high = quantiles(predictive, tails).detach().double().cpu()
        self._pending = [(low, high), *self._pending[: self.horizon - 1]]
        self._variables, self._time_step = predictive.variables, predictive.time_step
        return float(self.observe(due))

    def observe(self, inside: Tensor) -> Tensor:
        """Take in which intervals held what came now, and return the evidence so far.

        Parameters
        ----------
        inside : Tensor, shape (*batch, H, S)
            For each horizon h whether the interval of the forecast issued h steps ago held what came now: 1 or 0, and
            NaN where there was none or the outcome is missing. Batches are monitored side by side.

        Returns
        -------
        Tensor, shape (*batch,)

        Raises
        ------
        DataError
            If shapes do not fit.
        """
        inside = torch.as_tensor(inside).double().cpu()
        if inside.ndim < 2 or inside.shape[-2] != self.horizon:
            raise DataError(f"expected values of shape (*batch, {self.horizon}, S), got {tuple(inside.shape)}")
        *batch, horizon, size = inside.shape
        if self._log_capital is None:
            self._log_capital = torch.zeros(*batch, horizon, horizon, size, len(self._hit), dtype=torch.float64)
            self._largest = torch.zeros(*batch, horizon, horizon, size, dtype=torch.float64)
        if self._largest.shape != (*batch, horizon, horizon, size):
            raise DataError(f"expected values like those before, got shape {tuple(inside.shape)}")
        if bool(((inside != 0) & (inside != 1) & ~inside.isnan()).any()):
            raise DataError("expected 1 for an outcome inside its interval, 0 for one outside and NaN for none")
        steps = torch.arange(horizon)
        # the game of a forecast h steps ahead is told by its time of issue, modulo h
        game = len(self._evidence) % (steps + 1)
        seen = ~inside.isnan().reshape(-1, horizon, size)
        gain = torch.where((inside == 1).reshape(-1, horizon, size, 1), self._hit, self._miss)
        flat = self._log_capital.flatten(0, len(batch) - 1) if batch else self._log_capital[None]
        bets = flat[:, steps, game]
        won = bets + gain
        if self.switching:
            still, moving = won.chunk(2, -1)
            anew = moving.logsumexp(-1, keepdim=True) + math.log(self.switching / moving.shape[-1])
            won = torch.cat((still, torch.logaddexp(moving + math.log1p(-self.switching), anew)), -1)
        bets = torch.where(seen[..., None], won, bets)
        flat[:, steps, game] = bets
        capital = (bets.logsumexp(-1) - math.log(len(self._hit))).view(*batch, horizon, size)
        largest = self._largest.flatten(0, len(batch) - 1) if batch else self._largest[None]
        kept = torch.maximum(largest[:, steps, game], capital.reshape(-1, horizon, size))
        largest[:, steps, game] = kept
        among = steps[None, :] <= steps[:, None]  # (H, games)
        adjusted = torch.where(among[..., None], adjust(self._largest), 0.0).sum((-2, -1))
        evidence = adjusted / ((steps + 1) * size)
        first = capital[..., 0, :].exp().mean(-1)
        evidence = torch.cat((first[..., None], evidence[..., 1:]), -1)
        self._evidence.append(evidence)
        self._inside.append(inside)
        return self._combined(evidence)

    def watch(self, forecasts: Forecasts) -> xr.Dataset:
        """Go through forecasts of recordings in the order of time, and return :meth:`to_dataset`.

        Parameters
        ----------
        forecasts : Forecast or iterable of Forecast
            From :func:`forecast`, with ``stride=1`` for one at each step. Recordings follow one another.

        Raises
        ------
        DataError
            If it is not known where windows start, or two start at one step.
        """
        found = gather(forecasts, lambda part: {"pit": pit(part.predictive, part.outcomes)})
        if found.start is None:
            raise DataError("expected forecasts that know where they start, from diagnostics.forecast(..., stride=1)")
        if found.horizon != self.horizon:
            raise DataError(f"expected forecasts of {self.horizon} step(s), got {found.horizon}")
        place = found.values["pit"].double()
        hit = central(place, torch.tensor([self.level], dtype=place.dtype, device=place.device))[..., 0]
        self._variables, self._time_step = found.variables, found.time_step
        steps = torch.arange(self.horizon)
        for recording in torch.unique(found.recording):
            rows = (found.recording == recording).nonzero()[:, 0]
            begin = found.start[rows] - found.start[rows].min()
            if len(torch.unique(begin)) != len(begin):
                raise DataError(f"expected one forecast a step, got several in recording {int(recording)}")
            due = torch.full((int(begin.max()) + self.horizon + 1, *hit.shape[1:]), float("nan"), dtype=hit.dtype)
            for row, start in zip(rows.tolist(), begin.tolist(), strict=True):
                due[start + 1 + steps, steps] = hit[row].cpu()
            for now in due[1:]:
                self.observe(now)
        return self.to_dataset()

    @property
    def evidence(self) -> Tensor:
        """The evidence of all horizons together after each step, shape (T, *batch)."""
        return self._combined(self.evidence_by_horizon)

    @property
    def evidence_by_horizon(self) -> Tensor:
        """The evidence of each horizon alone after each step, shape (T, *batch, H)."""
        if not self._evidence:
            raise SpecError("expected a monitor that has seen something, got one without updates")
        return torch.stack(self._evidence)

    @property
    def alarm(self) -> bool:
        """Whether the evidence has ever reached 1 / false_alarm, in any batch row."""
        return bool(self._evidence) and bool((self.evidence >= 1 / self.false_alarm).any())

    def to_dataset(self) -> xr.Dataset:
        """Return what was seen as labelled data.

        Returns
        -------
        xarray.Dataset
            By ``step`` (from 0): ``evidence`` of all horizons together, ``evidence_by_horizon`` (also by ``horizon``),
            ``inside`` (by ``horizon`` and ``variable``; NaN for nothing). ``alarm_step`` is the first step at which the
            evidence reached ``threshold`` (an attribute, 1 / false_alarm), -1 for none; ``alarm_step_by_horizon`` is
            that of each horizon watched alone.

        Raises
        ------
        SpecError
            Before the first update, or with batches.
        """
        together = self.evidence
        if together.ndim > 1:
            raise SpecError("expected a monitor without batches for a data set, got several side by side")
        single, inside = self.evidence_by_horizon, torch.stack(self._inside)
        names = self._variables or Variables([Variable(f"x{i}") for i in range(inside.shape[-1])])
        coords = horizon_coords(names, steps=self.horizon, time_step=self._time_step)
        threshold = 1 / self.false_alarm
        better = {"better": "lower"}
        return xr.Dataset(
            {
                "evidence": ("step", together.numpy(), {"long_name": "evidence against the coverage", **better}),
                "evidence_by_horizon": (("step", "horizon"), single.numpy(), better),
                "inside": (("step", "horizon", "variable"), inside.numpy()),
                "alarm_step": ((), _first(together, threshold)),
                "alarm_step_by_horizon": ("horizon", [_first(single[:, h], threshold) for h in range(self.horizon)]),
            },
            coords={**coords, "step": np.arange(len(together))},
            attrs={
                "level": self.level,
                "false_alarm": self.false_alarm,
                "tolerance": self.tolerance,
                "switching": self.switching,
                "threshold": threshold,
                "horizons": list(self.horizons),
            },
        )

    def _combined(self, evidence: Tensor) -> Tensor:
        return evidence[..., [h - 1 for h in self.horizons]].mean(-1)


def adjust(log_largest: Tensor) -> Tensor:
    r"""Return what the largest capital so far is worth, given its logarithm, not below 0: (e - 1 - log e) / log(e)^2.

    It is the mean of k e^(1 - k) over k from 0 to 1, and satisfies :math:`\int_1^\infty A(e) e^{-2} de = 1`.

    References
    ----------
    Dawid et al. (2011), Insuring against loss of evidence in game-theoretic probability, section 2.

    Examples
    --------
    >>> adjust(torch.tensor([1.0, 1000.0]).double().log()).numpy().round(2)
    array([ 0.5 , 20.79])
    """
    small = log_largest < 1e-3
    safe = torch.where(small, 1.0, log_largest)
    return torch.where(small, 0.5 + log_largest / 6, (torch.expm1(safe) - safe) / safe.square())


def _odds(level: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the log gains of a hit and of a miss for each bet: on none, and on coverages below and above."""
    share = (torch.arange(_BETS, dtype=torch.float64) + 0.5) / _BETS
    low, high = level - tolerance, level + tolerance
    below, above = low * share, high + (1 - high) * share
    against = torch.cat((torch.full_like(below, low), torch.full_like(above, high)))
    bets = torch.cat((below, above))
    none = torch.zeros(1, dtype=torch.float64)
    return torch.cat((none, (bets / against).log())), torch.cat((none, ((1 - bets) / (1 - against)).log()))


def _inside(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    # met is within rounding, as for laws
    reach = 1e-9 * x.abs().clamp(min=1.0)
    held = ((x >= low - reach) & (x <= high + reach)).double()
    return torch.where(x.isnan(), float("nan"), held)


def _first(values: Tensor, threshold: float) -> int:
    reached = (values >= threshold).nonzero()
    return int(reached[0, 0]) if len(reached) else -1
