"""Prototypes of learned mechanisms, and the reference systems with nothing known but the parents."""

import torch
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal import Learned, StructuralModel

C1 = {"Y": ("X", "Z"), "X": ("Z",), "Z": ()}
C2 = {"e": (), "a": ("s[t-1]", "e"), "s": ("s[t-1]", "a", "e")}
C5 = {"U": (), "A0": (), "L1": ("A0", "U"), "A1": ("L1",), "Y": ("A1", "L1", "U")}
C6 = {"X": (), "M": ("X",), "Y": ("X", "M")}


def linear(**given: object) -> bwm.BayesianDynamics:
    """Linear in the parents, in closed form."""
    structure = bwm.structures.Linear(c=Normal(0.0, 10.0))
    return bwm.BayesianDynamics(structure=structure, inference=bwm.inference.Conjugate(), **given)  # pyright: ignore[reportArgumentType]


def with_product(schema: bwm.Schema, *, scale: float = 10.0, **given: object) -> bwm.BayesianDynamics:
    """Two parents and their product, in closed form by default."""

    def fn(state: Tensor, x: Tensor, context: Tensor, p: dict[str, Tensor]) -> Tensor:
        first, second = x[..., :1], x[..., 1:]
        return state + p["c"] + p["first"] * first + p["second"] * second + p["both"] * first * second

    laws = {k: Normal(0.0, scale) for k in ("c", "first", "second", "both")}
    structure = bwm.structures.FromFunction(fn, schema=schema, parameters=laws)
    return bwm.BayesianDynamics(structure=structure, **{"inference": bwm.inference.Conjugate(), **given})  # pyright: ignore[reportArgumentType]


def gaussian_process() -> bwm.GaussianProcess:
    return bwm.GaussianProcess(restarts=1)


def ensemble(*, epochs: int = 30) -> bwm.DeepEnsemble:
    net = bwm.structures.MLP(hidden=(32, 32))
    return bwm.DeepEnsemble(structure=net, members=4, epochs=epochs, patience=10)


def learned(prototype: object, parents: dict[str, tuple[str, ...]], **own: object) -> StructuralModel:
    """All mechanisms learned by one prototype, but for those that are given."""
    return StructuralModel({k: Learned(own.get(k, prototype), p) for k, p in parents.items()})  # pyright: ignore[reportArgumentType]


def recorded(truth: StructuralModel, rows: int, *, varied: str | None = None, seed: int = 1) -> bwm.Trajectories:
    """Slices of a system, from a start of zeros but for one variable, which is N(0, 1)."""
    g = torch.Generator().manual_seed(seed)
    start = torch.zeros(rows, truth.schema.state.size, dtype=torch.float64)
    if varied is not None:
        start[:, truth.schema.state.column(varied)] = torch.randn(rows, generator=g, dtype=torch.float64)
    return bwm.data.simulate(truth, start, torch.zeros(1, 0), generator=g)
