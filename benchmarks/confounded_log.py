"""Effects from confounded logs by three families, and planning with what they learned.

`c2`: s' = 0.9 s + 0.5 a + e + w, a = -0.3 s + e + nu, 20,000 single steps, of which e, nu, or neither was recorded.
Prints the error of the effect of a in standard deviations of s' given s and a that is set (1.005), and the same for the
model of the same family that was fitted to states and actions alone.

`rod`: a pendulum in gusts that its logged controller leans against, 60 episodes of 50 steps with a recorded dither, for
several logs. Prints the effect of the torque, the CRPS of 25 steps under random torques, the coverage of 90 %
intervals, and steps upright of 100 in closed loop, with 95 % intervals over logs.
"""

import argparse
import math
import time

import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal import CausalDynamics, TimeGraph

DT, GRAVITY, TORQUE, DRAG, WIND, LEAN, DITHER = 0.05, 15.0, 3.0, 0.5, 1.0, 0.6, 0.3


def real(*names: str) -> list[bwm.Variable]:
    """Variables without units."""
    return [bwm.Variable(name) for name in names]


def c2_log(recorded: str, *, rows: int, seed: int) -> bwm.Trajectories:
    """Single steps of case C2."""
    g = torch.Generator().manual_seed(seed)
    e, nu, s, w = torch.randn(4, rows, 1, generator=g, dtype=torch.float64)
    a = -0.3 * s + e + nu
    after = 0.9 * s + 0.5 * a + e + 0.1 * w
    column = {"e": e, "nu": nu}.get(recorded)
    schema = bwm.Schema(
        state=real("s"), action=real("a"), context=real(*([recorded] if recorded else [])), time_step=1.0
    )
    context = None if column is None else column[:, None]
    return bwm.Trajectories(schema, state=torch.stack((s, after), 1), action=a[:, None], context=context)


def linear(context: list[bwm.Variable]) -> bwm.BayesianDynamics:
    """The conjugate family."""
    schema = bwm.Schema(state=real("s"), action=real("a"), context=context, time_step=1.0)
    unknown = {name: Normal(0.0, 3.0) for name in ("A", "B", "D", *(["C"] if context else []))}

    def step(s, a, c, p):
        return p["A"] * s + p["B"] * a + p["D"] + (p["C"] * c if context else 0.0)

    structure = bwm.structures.FromFunction(step, schema=schema, parameters=unknown)
    return bwm.BayesianDynamics(structure=structure, inference=bwm.inference.Conjugate())


def network(_: list[bwm.Variable]) -> bwm.DeepEnsemble:
    """An ensemble, which finds its inputs itself."""
    return bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(64, 64)), members=5, epochs=40)


def process(_: list[bwm.Variable]) -> bwm.GaussianProcess:
    """A sparse Gaussian process."""
    return bwm.GaussianProcess(features=256, restarts=1)


def slope(model: bwm.DynamicsModel, state: torch.Tensor, column: int, *, by: float = 1.0) -> torch.Tensor:
    """Effect of one more unit of action in each world."""
    worlds = model.draw(100, generator=torch.Generator().manual_seed(0))
    start = worlds.start(state)
    up, down = (
        worlds.transition(start, torch.tensor([u], dtype=torch.float64).to(worlds.dtype)).mean for u in (by, 0.0)
    )
    return (up - down)[:, 0, column].double() / by


def c2(rows: int) -> None:
    """Case C2 by family and by what was recorded."""
    graph = TimeGraph(
        [
            ("s[t]", "s[t+1]"),
            ("a[t]", "s[t+1]"),
            ("s[t]", "a[t]"),
            ("nu[t]", "a[t]"),
            ("e[t]", "a[t]"),
            ("e[t]", "s[t+1]"),
        ]
    )
    for family in (linear, network, process):
        for recorded in ("", "e", "nu"):
            began = time.perf_counter()
            log = c2_log(recorded, rows=rows, seed=0)
            hidden = {"": [], "e": real("e"), "nu": real("a_residual")}[recorded]
            if recorded:
                model: bwm.DynamicsModel = CausalDynamics(graph, dynamics=family(hidden))
            else:
                model = family([])
            model = model.fit(log, seed=0, progress=False)
            found = slope(model, torch.zeros(1), 0)
            what = {"": "naive", "e": "e recorded", "nu": "nu recorded"}[recorded]
            error = abs(float(found.mean()) - 0.5) / 1.01**0.5
            print(
                f"{family.__name__:8s} {what:12s} effect {float(found.mean()):.3f} (0.5), error {error:.3f} sd, "
                f"{time.perf_counter() - began:.0f} s",
                flush=True,
            )


def rod_step(x, u, c, p):
    """One step of the rod."""
    angle, speed = x[..., 0], x[..., 1]
    push = p["gravity"] * torch.sin(angle) + p["torque"] * u[..., 0] - p["drag"] * speed + p["wind"]
    if c.shape[-1]:
        push = push + p["gust"] * c[..., 0]
    return torch.stack((angle + DT * speed, speed + DT * push), -1)


STATE = [bwm.Variable("angle", kind="angle"), bwm.Variable("velocity")]
ACTION = [bwm.Variable("torque", bounds=(-4.0, 4.0))]
ROD = bwm.Schema(state=STATE, action=ACTION, time_step=DT)


def rod_log(*, seed: int) -> bwm.Trajectories:
    """The old controller in gusts."""
    g = torch.Generator().manual_seed(seed)
    draw = {"generator": g, "dtype": torch.float64}
    x = torch.stack((math.tau * torch.rand(60, **draw) - math.pi, 2 * torch.randn(60, **draw)), -1)
    states, actions, dithers = [x], [], []
    for _ in range(50):
        gust, dither = WIND * torch.randn(60, **draw), DITHER * torch.randn(60, **draw)
        torque = -0.3 * x[:, 1] - LEAN * gust + dither
        values = {"gravity": GRAVITY, "torque": TORQUE, "drag": DRAG, "wind": TORQUE * gust}
        rest = torch.randn(60, 2, **draw) * torch.tensor([0.002, 0.02])
        x = rod_step(x, torque[:, None], x[:, :0], values) + rest
        states.append(x)
        actions.append(torque)
        dithers.append(dither)
    schema = bwm.Schema(state=STATE, action=ACTION, context=real("dither"), time_step=DT)
    action, context = (torch.stack(v, 1)[..., None] for v in (actions, dithers))
    return bwm.Trajectories(schema, state=torch.stack(states, 1), action=action, context=context)


def rod_family(kind: str, context: list[bwm.Variable]) -> bwm.DynamicsModel:
    """The equation of motion with unknown numbers, or an ensemble that knows nothing."""
    if kind == "ensemble":
        return bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(64, 64)), members=4, epochs=100)
    schema = bwm.Schema(state=STATE, action=ACTION, context=context, time_step=DT)
    unknown = {k: Normal(0.0, 20.0) for k in ("gravity", "torque", "drag", "wind", *(["gust"] if context else []))}
    structure = bwm.structures.FromFunction(rod_step, schema=schema, parameters=unknown)
    return bwm.BayesianDynamics(structure=structure, inference=bwm.inference.Conjugate())


def rod(logs: int, kinds: list[str]) -> None:
    """The pendulum, over several logs."""
    values = {"gravity": GRAVITY, "torque": TORQUE, "drag": DRAG, "wind": 0.0}
    structure = bwm.structures.FromFunction(rod_step, schema=ROD, parameters=values)
    system = bwm.KnownDynamics(structure=structure, noise={"angle": 0.002, "velocity": math.hypot(DT * TORQUE, 0.02)})
    edges = [(f"{c}[t]", f"{r}[t+1]") for c in ("angle", "velocity", "torque") for r in ("angle", "velocity")]
    edges += [("angle[t]", "torque[t]"), ("velocity[t]", "torque[t]"), ("dither[t]", "torque[t]")]
    graph = TimeGraph(edges, [("torque[t]", "angle[t+1]"), ("torque[t]", "velocity[t+1]")])
    tip = bwm.planning.tip_distance(ROD, ["angle"], lengths=[1.0], target=[0.0, 1.0], upright=0.0)
    objective = bwm.planning.saturating(tip, 0.5)
    plant = bwm.planning.Simulated(system, torch.tensor([math.pi, 0.0]).expand(8, 2), objective=objective)
    search = {"samples": 64, "iterations": 2, "elites": 8, "spread": 1.0, "worlds": 4, "particles": 2}
    planner = bwm.planning.ICEM(objective, horizon=25, bounds=(-2.0, 2.0), **search)
    found: dict[str, list[list[float]]] = {}
    for seed in range(logs):
        log = rod_log(seed=seed)
        bare = bwm.Trajectories(ROD, state=log.states(), action=log.action)
        g = torch.Generator().manual_seed(1000 + seed)
        draw = {"generator": g, "dtype": torch.float64}
        start = torch.stack((math.tau * torch.rand(100, **draw) - math.pi, 2 * torch.randn(100, **draw)), -1)
        torque = 4 * torch.rand(100, 25, 1, **draw) - 2
        held = bwm.data.simulate(system, start, torque, generator=g)
        models: dict[str, bwm.DynamicsModel] = {"truth": system}
        for kind in kinds:
            models[f"{kind}, naive"] = rod_family(kind, []).fit(bare, seed=seed, progress=False)
            dynamics = rod_family(kind, real("torque_residual"))
            models[f"{kind}, causal"] = CausalDynamics(graph, dynamics=dynamics).fit(log, seed=seed, progress=False)
        for name, model in models.items():
            c = bwm.diagnostics.calibration(model, held, horizon=25, levels=[0.9], worlds=16, particles=20)
            c = c.sel(variable="velocity")
            driven = bwm.planning.control(plant, model, planner, max_steps=100, seed=seed, progress=False)
            effect = float(slope(model, torch.zeros(2), 1).mean()) / DT
            row = [effect, *(float(c.rmse[h]) for h in (0, 24)), *(float(c.crps[h]) for h in (0, 24))]
            row += [*(float(c.coverage.squeeze()[h]) for h in (0, 24)), float(100 + driven.returns.mean())]
            found.setdefault(name, []).append(row)
            print(seed, name, [round(v, 3) for v in row], flush=True)
    heads = ("effect (3)", "RMSE 1", "RMSE 25", "CRPS 1", "CRPS 25", "cover 1", "cover 25", "upright")
    for name, rows in found.items():
        table = torch.tensor(rows)
        half = 1.96 * table.std(0) / len(table) ** 0.5 if len(table) > 1 else table[0] * 0
        cells = zip(heads, table.mean(0).tolist(), half.tolist(), strict=True)
        print(f"{name:18s}", "  ".join(f"{h} {m:.2f} +- {s:.2f}" for h, m, s in cells))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["c2", "rod"])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--logs", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["conjugate", "ensemble"])
    arguments = parser.parse_args()
    if arguments.what == "c2":
        c2(arguments.rows)
    else:
        rod(arguments.logs, arguments.kinds)
