"""Effects along chosen paths of a slice, by nested counterfactuals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.causal.effects.branches import Branches
from bayeswm.causal.effects.effect import check_finite, check_level, labelled, summarised
from bayeswm.causal.interventions.intervention import Intervention, do
from bayeswm.causal.structural.mechanism import Mechanism
from bayeswm.causal.structural.worlds import StructuralWorlds

if TYPE_CHECKING:
    import xarray

Edges = set[tuple[str, str]]


def path_effect(
    model: DynamicsModel | Worlds,
    treatment: Intervention,
    control: Intervention,
    *,
    paths: Iterable[Sequence[str]],
    state: Belief,
    actions: Tensor | None = None,
    context: Tensor | None = None,
    worlds: int = 64,
    particles: int = 1000,
    level: float = 0.9,
    logged: Trajectories | None = None,
    generator: torch.Generator | None = None,
) -> xarray.Dataset:
    """Return the part of an effect that goes along some paths of a slice, and not along others.

    Along the edges of the paths, variables see what the treatment makes of those before them; along all other edges
    they see what these are under the control. Noise is the same in both.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A :class:`StructuralModel` of known mechanisms, or worlds of one.
    treatment, control : Intervention
        On the same variables of the slice; made by :func:`do`.
    paths : sequence of sequences of str
        Each from a variable that is set to the outcome, which is the same for all, such as ``("X", "M", "Y")``.
    state, actions, context, worlds, particles, level, logged, generator
        As of :func:`effect`; one step.

    Returns
    -------
    xarray.Dataset
        As of :func:`effect`, for the outcome alone.

    Raises
    ------
    SpecError
        If a path is none of the slice; if the set of paths is not all that its edges lead along; or if there is a
        recanting witness: a variable that would have to be as under the treatment for one path, and as under the
        control for another. No experiment shows what such a unit does, even where all mechanisms but the noise are
        known from experiments.
    UnknownVariableError
        For a variable that the slice does not have.

    References
    ----------
    Avin, Shpitser & Pearl (2005), Identifiability of path-specific effects.

    Examples
    --------
    Y = X + 0.5 M + 0.25 X M with M = 1 + 2 X: of the total 2.75, 1.25 goes past M and 1 along it.

    >>> import bayeswm as bwm
    >>> from bayeswm.causal import StructuralModel
    >>> scm = StructuralModel({
    ...     "X": Mechanism(lambda: 0.0),
    ...     "M": Mechanism(lambda X: 1 + 2 * X),
    ...     "Y": Mechanism(lambda X, M: X + 0.5 * M + 0.25 * X * M),
    ... })
    >>> x1, x0 = bwm.do(X=1.0), bwm.do(X=0.0)
    >>> for paths in ([("X", "Y")], [("X", "M", "Y")]):
    ...     print(path_effect(scm, x1, x0, paths=paths, state=torch.zeros(3), particles=1).effect.item())
    1.25
    1.0
    """
    check_level(level)
    branches = Branches(
        model,
        state,
        actions,
        horizon=1,
        context=context,
        worlds=worlds,
        particles=particles,
        generator=generator,
    )
    system = branches.worlds
    if not isinstance(system, StructuralWorlds):
        raise SpecError(f"expected a StructuralModel, whose slice has paths, got {type(system).__name__}")
    known = {name: _known(name, m) for name, m in system.mechanisms.items()}
    edges = {(c.removesuffix("[t]"), n) for n, m in known.items() for c in m.causes if c.removesuffix("[t]") in known}
    treated = {one.name for i in (treatment, control) for one in i.assignments}
    active, outcome = _active(paths, edges, treated)
    _check_witness(active, edges, treated, outcome=outcome)
    under_control = branches.run(control)
    held = _held(known, active, treated, control=under_control)
    along = branches.run(treatment, *([do(held)] if held else []))
    for branch in (along, under_control):
        check_finite(branch)
    values = along.particles - under_control.particles
    found = summarised("effect", values, along, level=level)
    data = labelled(found, along, attributes={"level": level, "worlds": along.worlds, "particles": particles})
    return branches.with_positivity(data.sel(variable=outcome), logged, treatment=treatment, control=control)


def _known(name: str, mechanism: object) -> Mechanism:
    if not isinstance(mechanism, Mechanism):
        raise SpecError(
            f"expected known mechanisms, got a {type(mechanism).__name__} for {name!r}; "
            "mediation takes learned ones too"
        )
    return mechanism


def _active(paths: Iterable[Sequence[str]], edges: Edges, treated: set[str]) -> tuple[Edges, str]:
    """Return the edges of the paths, and where they lead."""
    given = {tuple(path) for path in paths}
    names = {name for edge in edges for name in edge} | treated
    for path in given:
        for name in path:
            if name not in names:
                raise UnknownVariableError.of(name, sorted(names))
        steps = list(itertools.pairwise(path))
        if not steps or path[0] not in treated or any(step not in edges for step in steps):
            raise SpecError(
                f"expected a path along edges {sorted(edges)} from one of {sorted(treated)}, got {' -> '.join(path)}"
            )
    ends = {path[-1] for path in given}
    if len(ends) != 1:
        raise SpecError(f"expected paths to one outcome, got {sorted(ends) or 'none'}")
    (outcome,) = ends
    active = {step for path in given for step in itertools.pairwise(path)}
    whole = {path for name in treated for path in _paths(name, outcome, active)}
    more = sorted(whole - given)
    if more:
        raise SpecError(
            f"expected all paths along the edges that are given, or a set that edges tell apart, got none of "
            f"{' -> '.join(more[0])}; add it"
        )
    return active, outcome


def _paths(begin: str, end: str, edges: Edges) -> list[tuple[str, ...]]:
    if begin == end:
        return [(end,)]
    return [(begin, *rest) for a, b in sorted(edges) if a == begin for rest in _paths(b, end, edges)]


def _check_witness(active: Edges, edges: Edges, treated: set[str], *, outcome: str) -> None:
    reached = {b for _, b in active} - treated - {outcome}
    for name in sorted(reached):
        other = [b for a, b in sorted(edges - active) if a == name and _paths(b, outcome, edges)]
        if other:
            raise SpecError(
                f"expected paths without a recanting witness, got {name!r}: it would be as under the treatment along "
                f"some paths, and as under the control along {name} -> {other[0]}; take these paths in, or leave out "
                f"those through {name!r}"
            )


def _held(
    known: dict[str, Mechanism], active: Edges, treated: set[str], *, control: Predictive
) -> dict[str, Mechanism]:
    """Return mechanisms that see what the control branch had, along edges that are not active."""
    changed = treated | {b for _, b in active}
    columns = control.variables.columns
    found: dict[str, Mechanism] = {}
    for name, mechanism in known.items():
        sources = [c.removesuffix("[t]") for c in mechanism.causes]
        fixed = {i for i, c in enumerate(sources) if c in changed and (c, name) not in active}
        if not fixed or name in treated:
            continue
        values = {i: control.particles[..., 0, columns.index(sources[i])] for i in fixed}
        rest = tuple(c for i, c in enumerate(mechanism.causes) if i not in fixed)
        found[name] = Mechanism(_Nested(mechanism, values), rest, mechanism.noise)
    return found


class _Nested:
    """A mechanism of which some parents are known values (worlds, particles, *batch)."""

    def __init__(self, mechanism: Mechanism, values: dict[int, Tensor]) -> None:
        self.mechanism, self.values = mechanism, values

    def __call__(self, *rest: Any) -> Any:
        given = iter(rest)
        causes = range(len(self.mechanism.causes))
        return self.mechanism.fn(*(self.values[i] if i in self.values else next(given) for i in causes))
