"""Swing-ups learned from scratch, over the published curves: pendulum and cart-pole as in PILCO and Black-DROPS.

An episode lasts 40 steps of 0.1 s; the first has random actions, and the time counts it. The controller sees the state
with noise of sd 0.01. After each episode the model learns from all that was seen, and the next one is planned at every
step with worlds drawn once. Published curves are of policies fixed for an episode; planning anew at each step is a
stronger class.

Prints the best return so far by seconds of experience, median and quartiles over seeds, beside the published medians
and the ceiling, and the CPU seconds of each run; with worlds and with their mean function alone at as many evaluations,
paired by seed. A file keeps the runs, so that it can be broken off and taken up again.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from scipy.stats import wilcoxon
from torch import Tensor

import bayeswm as bwm
from bayeswm.planning import ICEM, Objective, Planner, saturating, tip_distance
from bayeswm.structures import MLP, CartPole, Pendulum

STEPS, SENSOR, BUDGET = 40, 0.01, 300.0


@dataclass(frozen=True)
class Task:
    """A system, its cost, the planner's settings, published medians by seconds, and the best possible return."""

    structure: bwm.Structure
    objective: Objective
    planner: dict[str, object]
    published: dict[str, dict[int, float]]
    ceiling: float
    episodes: int


def _tasks() -> dict[str, Task]:
    cart, rod = CartPole.swing_up(), Pendulum.swing_up()
    tip = tip_distance(cart.schema, ["angle"], lengths=[0.5], target=[0.0, 0.5], base="position", upright=torch.pi)
    end = tip_distance(rod.schema, ["angle"], lengths=[1.0], target=[0.0, 1.0], upright=torch.pi)
    return {
        "cart-pole": Task(
            cart,
            saturating(tip, 0.25),
            {"horizon": 13, "samples": 64, "iterations": 3},
            {"PILCO": {16: 24.2, 24: 25.6}, "Black-DROPS": {20: 27.3, 24: 30.8}},
            32.98,
            5,
        ),
        "pendulum": Task(
            rod,
            saturating(end, 0.5),
            {"horizon": 13, "samples": 200, "iterations": 4},
            {"PILCO": {12: 19.9, 24: 22.2}, "Black-DROPS": {12: 24.5}},
            24.66,
            5,
        ),
    }


def planner(task: Task, *, first: bool = False) -> Planner:
    """The planner, or a larger search for the first plan of an episode."""
    settings = dict(task.planner)
    if first:
        settings["samples"] = 4 * int(settings["samples"])  # pyright: ignore[reportArgumentType]
        settings["iterations"] = 8
    return ICEM(task.objective, spread=1.0, elites=10, exponent=1.0, **settings)  # pyright: ignore[reportArgumentType]


def mean_function(model: bwm.GaussianProcess) -> bwm.Worlds:
    """One world: the posterior mean of the function."""
    world = model.draw(1, generator=torch.Generator().manual_seed(0))
    return world.replace(amplitude=0.0, update=world.residual.posterior.alpha[None])  # pyright: ignore[reportAttributeAccessIssue]


def family(
    name: str,
) -> tuple[Callable[[], bwm.DynamicsModel], Callable[[bwm.DynamicsModel, torch.Generator], bwm.Worlds]]:
    """How a model is made, and which worlds the planner sees."""
    if name == "ensemble":
        return (
            lambda: bwm.DeepEnsemble(
                structure=MLP(hidden=(64, 64)), members=5, validation=0.0, epochs=1000, batch_size=32
            ),
            lambda model, _: model.draw(5),
        )
    single = name == "GP mean"
    return (
        lambda: bwm.GaussianProcess(features=128, restarts=1),
        lambda model, g: mean_function(model) if single else model.draw(20, generator=g),  # pyright: ignore[reportArgumentType]
    )


def run(task: Task, name: str, seed: int, *, episodes: int) -> dict[str, object]:
    """Learn from scratch; returns of each episode and the CPU seconds."""
    make, worlds_of = family(name)
    g = torch.Generator().manual_seed(seed)
    system = bwm.KnownDynamics(structure=task.structure).draw(1)
    schema, size = task.structure.schema, task.structure.schema.state.size
    bound = schema.action[0].bounds[1]
    seen: list[Tensor] = []
    done: list[Tensor] = []
    returns, began = [], time.process_time()
    for episode in range(episodes + 1):
        state = 0.001 * torch.randn(size, generator=g, dtype=torch.float64)
        measured = [state + SENSOR * torch.randn(size, generator=g, dtype=torch.float64)]
        path, actions = [state], []
        plan, worlds = None, None
        if episode:
            data = bwm.Trajectories(schema, state=torch.stack(seen), action=torch.stack(done))
            model = make().fit(data, seed=seed, progress=False)
            worlds = worlds_of(model, g).to(torch.float32)
        for t in range(STEPS):
            if worlds is None:
                action = bound * (2 * torch.rand(1, generator=g, dtype=torch.float64) - 1)
            else:
                plan = planner(task, first=t == 0).plan(worlds, measured[-1], generator=g, previous=plan)
                action = plan.action.double()
            state = system.transition(system.start(state), action).mean[0, 0]
            path.append(state)
            actions.append(action)
            measured.append(state + SENSOR * torch.randn(size, generator=g, dtype=torch.float64))
        seen.append(torch.stack(measured))
        done.append(torch.stack(actions))
        cost = task.objective.cost(torch.stack(path), done[-1], torch.empty(STEPS, 0, dtype=torch.float64))
        returns.append(STEPS - float(cost))
        print(
            f"  seed {seed} episode {episode}: return {returns[-1]:6.2f}  {time.process_time() - began:6.1f} CPU s",
            flush=True,
        )
    return {"returns": returns, "cpu_s": time.process_time() - began}


def main() -> None:
    """Run what is missing and print the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["cart-pole", "pendulum"])
    parser.add_argument("--families", nargs="+", default=["GP", "GP mean", "ensemble"])
    parser.add_argument("--seeds", type=int, default=10, help="the ensemble has at most 3")
    parser.add_argument("--file", type=Path, default=Path("build/swing_up.jsonl"))
    parser.add_argument("--figure", type=Path, help="where to draw the curves")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    kept = [json.loads(line) for line in args.file.read_text().splitlines()] if args.file.exists() else []
    for name, task in _tasks().items():
        if name not in args.tasks:
            continue
        for kind in args.families:
            seeds = range(min(args.seeds, 3) if kind == "ensemble" else args.seeds)
            for seed in seeds:
                if any((k["task"], k["family"], k["seed"]) == (name, kind, seed) for k in kept):
                    continue
                print(f"{name}, {kind}", flush=True)
                found = {"task": name, "family": kind, "seed": seed, **run(task, kind, seed, episodes=task.episodes)}
                kept.append(found)
                with args.file.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            rows = [k for k in kept if k["task"] == name and k["family"] == kind]
            if rows:
                show(name, kind, task, rows)
        compare(name, [k for k in kept if k["task"] == name])
    if args.figure is not None:
        draw(kept, args.figure)


def show(name: str, kind: str, task: Task, rows: list[dict]) -> None:
    """Print the best return so far by seconds of experience."""
    longest = max(k["cpu_s"] for k in rows)
    print(f"{name}, {kind}: {len(rows)} seeds, {longest:.0f} CPU s at most of {BUDGET:.0f}; ceiling {task.ceiling}")
    for episode in range(task.episodes + 1):
        best = sorted(max(k["returns"][: episode + 1]) for k in rows)
        low, mid, high = (_quantile(best, q) for q in (0.25, 0.5, 0.75))
        seconds = 4 * (episode + 1)
        others = "  ".join(f"{who} {at[seconds]}" for who, at in task.published.items() if seconds in at)
        print(f"  {seconds:3d} s: median {mid:6.2f}  quartiles {low:6.2f} {high:6.2f}  {others}")


def compare(name: str, rows: list[dict]) -> None:
    """Print whether worlds do better than their mean function: best returns so far, paired by seed."""
    by = {kind: {k["seed"]: k["returns"] for k in rows if k["family"] == kind} for kind in ("GP", "GP mean")}
    seeds = sorted(by["GP"].keys() & by["GP mean"].keys())
    if len(seeds) < 2:
        return
    print(f"{name}: best return so far with worlds minus that with their mean function, {len(seeds)} seeds in pairs")
    for episode in range(1, len(by["GP"][seeds[0]])):
        change = [max(by["GP"][s][: episode + 1]) - max(by["GP mean"][s][: episode + 1]) for s in seeds]
        p = float(wilcoxon(change).pvalue)
        print(f"  {4 * (episode + 1):3d} s: median {statistics.median(change):+6.2f}  p {p:.3f} (Wilcoxon signed rank)")


def draw(rows: list[dict], path: Path) -> None:
    """Draw the curves over the published medians."""
    tasks = {name: task for name, task in _tasks().items() if any(k["task"] == name for k in rows)}
    fig, axes = plt.subplots(1, len(tasks), figsize=(4.5 * len(tasks), 3.4), squeeze=False)
    for axis, (name, task) in zip(axes[0], tasks.items(), strict=True):
        for color, kind in zip(("C0", "C1", "C2"), ("GP", "GP mean", "ensemble"), strict=True):
            found = [k["returns"] for k in rows if (k["task"], k["family"]) == (name, kind)]
            if not found:
                continue
            best = [[max(r[: e + 1]) for r in found] for e in range(len(found[0]))]
            seconds = [4 * (e + 1) for e in range(len(best))]
            axis.plot(seconds, [_quantile(b, 0.5) for b in best], color=color, label=f"{kind} ({len(found)} seeds)")
            low, high = ([_quantile(b, q) for b in best] for q in (0.25, 0.75))
            axis.fill_between(seconds, low, high, color=color, alpha=0.2, lw=0)
        for marker, (who, at) in zip("sD", task.published.items(), strict=True):
            axis.plot(list(at), list(at.values()), marker, color="0.3", label=f"{who}, published")
        axis.axhline(task.ceiling, color="0.7", lw=0.8)
        axis.set(title=name, xlabel="seconds of experience", xticks=range(4, 4 * task.episodes + 5, 4))
        axis.legend(frameon=False, fontsize=7)
    axes[0, 0].set_ylabel("best return so far")
    fig.tight_layout()
    fig.savefig(path, dpi=150)


def _quantile(values: list[float], q: float) -> float:
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * q) - 1]


if __name__ == "__main__":
    main()
