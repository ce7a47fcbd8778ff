"""Logs of which the causes are known: case C2 of the exact answers, and relatives."""

import torch
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.causal import Adjusted, CausalDynamics, Instrumented, Proxied, TimeGraph
from bayeswm.structures import FromFunction

STATE = [("s[t]", "s[t+1]"), ("a[t]", "s[t+1]"), ("s[t]", "a[t]")]
BOW = [("a[t]", "s[t+1]")]
# e joins a and s; nu moves a only; z and y measure e
C2 = TimeGraph([*STATE, ("e[t]", "a[t]"), ("e[t]", "s[t+1]"), ("nu[t]", "a[t]"), ("e[t]", "z[t]"), ("e[t]", "y[t]")])
Z_ERROR, Y_ERROR = 0.5, 0.8


def schema(*context: str) -> bwm.Schema:
    """One state, one action and real context."""
    return bwm.Schema(
        state=[bwm.Variable("s")],
        action=[bwm.Variable("a")],
        context=[bwm.Variable(name) for name in context],
        time_step=1.0,
    )


def c2_log(n: int, *recorded: str, seed: int = 0, noise: float = 0.1) -> bwm.Trajectories:
    """Single steps of C2 with some of its variables recorded."""
    g = torch.Generator().manual_seed(seed)
    e, nu, s, w, v, u = torch.randn(6, n, 1, generator=g, dtype=torch.float64)
    a = -0.3 * s + e + nu
    after = 0.9 * s + 0.5 * a + e + noise * w
    columns = {"e": e, "nu": nu, "z": e + Z_ERROR * v, "y": e + Y_ERROR * u}
    context = torch.cat([columns[name] for name in recorded], -1)[:, None] if recorded else None
    return bwm.Trajectories(schema(*recorded), state=torch.stack((s, after), 1), action=a[:, None], context=context)


def affine(*context: str, action: str = "a") -> bwm.BayesianDynamics:
    """Learns s' as an affine function of state, action and context, in closed form."""
    seen = bwm.Schema(
        state=[bwm.Variable("s")],
        action=[bwm.Variable(action)],
        context=[bwm.Variable(name) for name in context],
        time_step=1.0,
    )

    def step(s: Tensor, a: Tensor, c: Tensor, p: dict[str, Tensor]) -> Tensor:
        return p["A"] * s + p["B"] * a + (c * p["C"]).sum(-1, keepdim=True) + p["D"]

    wide = Normal(torch.zeros(len(context), dtype=torch.float64), 3.0)
    parameters = {"A": Normal(0.0, 3.0), "B": Normal(0.0, 3.0), "C": wide, "D": Normal(0.0, 3.0)}
    structure = FromFunction(step, schema=seen, parameters=parameters, name="affine")
    return bwm.BayesianDynamics(structure=structure, inference=bwm.inference.Conjugate())


ONE = torch.ones(1, dtype=torch.float64)


def fitted(log: bwm.Trajectories, *context: str, graph: TimeGraph = C2, **kwargs) -> CausalDynamics:
    """Causal dynamics with an affine outcome."""
    model = CausalDynamics(graph, dynamics=affine(*context), **kwargs)
    return model.fit(log, seed=0, progress=False)


def one_step(model: bwm.DynamicsModel, *, worlds: int = 400) -> tuple[float, float, float]:
    """Mean, variance and epistemic standard deviation of s' from s = 1 with a = 1."""
    p = model.predictive(ONE, ONE, worlds=worlds, generator=make_generator(1))
    return float(p.mean), float(p.variance), float(p.epistemic_variance) ** 0.5


# what was recorded, what the model of outcomes sees, further arguments, and the strategy
CASES = {
    "e": (("e",), ("e",), {}, Adjusted(("e",))),
    "nu": (("nu",), ("a_residual",), {}, Instrumented(("nu",), ("a",))),
    "z": (("z",), ("e",), {"proxy_error": {"z": Z_ERROR}}, Proxied("e", ("z",))),
    "z and y": (("z", "y"), ("e",), {}, Proxied("e", ("z", "y"))),
}
