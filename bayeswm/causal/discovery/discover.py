"""Discovery, small and honest: what each next state depends on, as a draft of a graph with its uncertainty."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.trajectories import Trajectories
from bayeswm.causal.discovery.candidates import candidates
from bayeswm.causal.discovery.residual_tests import ResidualTests
from bayeswm.causal.discovery.spike_and_slab import SpikeAndSlab
from bayeswm.causal.graphs.names import name_and_lag
from bayeswm.causal.graphs.time_graph import TimeGraph

if TYPE_CHECKING:
    import xarray

PROBABILITY, P_VALUE = "inclusion_probability", "adjusted_p_value"


@dataclass(frozen=True, eq=False, repr=False)
class GraphDraft:
    """What each next state may depend on, and how sure that is; made by :func:`discover`.

    Attributes
    ----------
    table : xarray.DataArray
        By ``cause`` (such as ``"speed[t-1]"``) and ``effect`` (``"speed[t]"``). Its name says what it holds:
        ``inclusion_probability``, the posterior probability that the cause is a parent; or ``adjusted_p_value`` of the
        hypothesis that it is none.
    actions : tuple of str
        Actions and context, which mechanisms name without a time.
    """

    table: xarray.DataArray
    actions: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether the table holds p-values and not probabilities."""
        return self.table.name == P_VALUE

    def edges(self, threshold: float | None = None) -> tuple[tuple[str, str], ...]:
        """Return pairs (cause, effect): probabilities of at least, or p-values of at most a threshold.

        Parameters
        ----------
        threshold : float, optional
            0.5 for probabilities (the median probability model); 0.05 for p-values (at most that share of the edges is
            false, on average).

        Raises
        ------
        SpecError
            If the threshold is not between 0 and 1.
        """
        limit = (0.05 if self.tested else 0.5) if threshold is None else threshold
        if not 0 < limit < 1:
            raise SpecError(f"expected a threshold between 0 and 1, got {threshold!r}")
        kept = self.table <= limit if self.tested else self.table >= limit
        return tuple(
            (str(cause), str(effect))
            for effect in self.table.effect.values
            for cause in self.table.cause.values
            if bool(kept.sel(cause=cause, effect=effect))
        )

    def graph(self, threshold: float | None = None, *, confounded: Iterable[tuple[str, str]] = ()) -> TimeGraph:
        """Return the graph of the edges that pass a threshold.

        Parameters
        ----------
        threshold : float, optional
            See :meth:`edges`.
        confounded : iterable of (str, str)
            Pairs with a hidden common cause, such as ``("push[t-1]", "speed[t]")``. Discovery does not look for them:
            they are a claim of yours.

        Returns
        -------
        TimeGraph
            With all variables of the log, those without an edge too.

        Raises
        ------
        UnknownVariableError
            If a confounded pair names a variable that the log does not have.
        """
        names = dict.fromkeys(name_and_lag(str(e))[0] for e in (*self.table.effect.values, *self.table.cause.values))
        pairs = list(confounded)
        for name in (name_and_lag(node)[0] for pair in pairs for node in pair):
            if name not in names:
                raise UnknownVariableError.of(name, names)
        return TimeGraph(self.edges(threshold), pairs, variables=names)

    def parents(self, effect: str, threshold: float | None = None) -> tuple[str, ...]:
        """Return the parents of a variable of the state, written as a mechanism names them.

        Parameters
        ----------
        effect : str
            A variable of the state, such as ``"speed"``.
        threshold : float, optional
            See :meth:`edges`.

        Raises
        ------
        UnknownVariableError
            With the closest names.
        """
        names = [name_and_lag(str(e))[0] for e in self.table.effect.values]
        if effect not in names:
            raise UnknownVariableError.of(effect, names)
        found = [cause for cause, into in self.edges(threshold) if into == f"{effect}[t]"]
        return tuple(c.removesuffix("[t-1]") if c.removesuffix("[t-1]") in self.actions else c for c in found)

    @property
    def doubtful(self) -> tuple[tuple[str, str, float], ...]:
        """Edges that could be there or not: (cause, effect, value) with a probability between 0.05 and 0.95.

        Of p-values those between 0.001 and 0.2.
        """
        low, high = (0.001, 0.2) if self.tested else (0.05, 0.95)
        pairs = [(str(c), str(e)) for e in self.table.effect.values for c in self.table.cause.values]
        values = [(c, e, float(self.table.sel(cause=c, effect=e))) for c, e in pairs]
        return tuple(found for found in values if low < found[2] < high)

    def expected_false(self, threshold: float | None = None) -> float:
        """Return how many of the edges that pass a threshold are expected to be false.

        With probabilities the sum of what is left to 1; with p-values an upper bound, the threshold times the number of
        edges.
        """
        kept = self.edges(threshold)
        if self.tested:
            return (0.05 if threshold is None else threshold) * len(kept)
        return sum(1 - float(self.table.sel(cause=c, effect=e)) for c, e in kept)

    def __repr__(self) -> str:
        sign = "p = " if self.tested else ""
        shown = [f"{c} -> {e} {sign}{float(self.table.sel(cause=c, effect=e)):.2g}" for c, e in self.edges()]
        doubt = f"{len(self.doubtful)} of {self.table.size} pairs in doubt"
        return f"GraphDraft({', '.join(shown) or 'no edges'}; {doubt}; hidden common causes not looked for)"


def discover(
    trajectories: Trajectories, *, method: SpikeAndSlab | ResidualTests | None = None, lags: int = 1
) -> GraphDraft:
    """Find which states, actions and context the next value of each variable of the state depends on.

    Parameters
    ----------
    trajectories : Trajectories
        Recorded states and actions; of numbers and angles.
    method : SpikeAndSlab or ResidualTests, optional
        Posterior probabilities (the default) or tests with a bound on the share of false edges.
    lags : int
        1: what was one step before; 2: two steps too.

    Returns
    -------
    GraphDraft
        A table of all pairs, and graphs from it.

    Raises
    ------
    SpecError, DataError
        For states that are neither numbers nor angles; too many candidates or too few steps for the method.

    Warnings
    --------
    An edge is a cause only if nothing unrecorded acts on both of its ends. A hidden wind that moves the system, and
    that a logged controller saw, makes the action look like more than it is, and no method here finds that out: such
    pairs are to be added by hand, as ``confounded=`` of the draft's graph. Noisy sensors do the same to states.
    Effects within one step are not looked for. Of a candidate that never varied the prior is all that is known.

    Examples
    --------
    A cart, its speed, and a thermometer that follows the speed and moves nothing:

    >>> import torch
    >>> import bayeswm as bwm
    >>> A = torch.tensor([[1.0, 0.1, 0.0], [0.0, 0.9, 0.0], [0.0, 0.5, 0.5]])
    >>> schema = bwm.Schema(
    ...     state=[bwm.Variable(n) for n in ("place", "speed", "warmth")], action=[bwm.Variable("push")], time_step=0.1
    ... )
    >>> structure = bwm.structures.Linear(schema, A=A, B=torch.tensor([[0.0], [0.5], [0.0]]))
    >>> model, g = bwm.KnownDynamics(structure=structure, noise=0.05), torch.Generator().manual_seed(0)
    >>> push = torch.randn(10, 30, 1, generator=g)
    >>> data = bwm.data.simulate(model, torch.zeros(10, 3), push, generator=g)
    >>> draft = discover(data)
    >>> for effect in ("place", "speed", "warmth"):
    ...     print(effect, draft.parents(effect))
    place ('place[t-1]', 'speed[t-1]')
    speed ('speed[t-1]', 'push')
    warmth ('speed[t-1]', 'warmth[t-1]')
    >>> float(draft.table.sel(cause="warmth[t-1]", effect="speed[t]")) < 0.1, draft.expected_false() < 0.1
    (True, True)
    >>> draft.graph() == discover(data, method=ResidualTests()).graph()
    True
    """
    import xarray as xr

    method = SpikeAndSlab() if method is None else method
    if not isinstance(method, SpikeAndSlab | ResidualTests):
        raise SpecError(f"expected method=SpikeAndSlab(...) or ResidualTests(...), got {method!r}")
    given = candidates(trajectories, lags=lags)
    probabilities = isinstance(method, SpikeAndSlab)
    table = xr.DataArray(
        method.table(given).cpu().numpy(),
        dims=("cause", "effect"),
        coords={"cause": list(given.causes), "effect": list(given.effects)},
        name=PROBABILITY if probabilities else P_VALUE,
        attrs={
            "long_name": "posterior probability of the edge" if probabilities else "p-value, adjusted by their number",
            "assumes": "no hidden common causes, no effects within a step, states measured without noise",
            "steps": len(given.values),
        },
    )
    schema = trajectories.schema
    return GraphDraft(table, (*schema.action.columns, *schema.context.columns))
