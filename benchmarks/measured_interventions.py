"""Interventions that somebody carried out and measured, predicted: docs/measured-interventions.md.

`python benchmarks/measured_interventions.py` prints the tables and writes them to a file (about ten minutes); it needs
the measured data. A pendulum with another payload, and single cells under reagents whose target was measured.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, LogNormal, Normal

import bayeswm as bwm
from bayeswm import diagnostics
from bayeswm.base.random import make_generator, permutation
from bayeswm.inference import HMC, Conjugate, Inference
from bayeswm.structures import Leapfrog, Pendulum

RUNS = ("ddp", "direct_collocation", "energy_shaping", "sac")  # the four with the standard payload that say anything
HISTORY, HORIZON, STRIDE, AT = 10, 50, 10, (5, 10, 25, 50)
WORLDS, PARTICLES = 64, 10

# The builders' test bench: a weight of 0.546 kg, and 0.130 kg of rod, mounting parts and screws. The other run is
# called "1kg", and no more is said of it: two readings, neither of which takes anything from that run.
WEIGHT, ROD = 0.546, 0.130
INSTEAD, ON_TOP = (1.0 + ROD) / (WEIGHT + ROD), (1.0 + WEIGHT + ROD) / (WEIGHT + ROD)
READINGS = {
    "no intervention": (1.0,),
    "1 kg in place of 0.546 kg": (INSTEAD,),
    "1 kg on top of it": (ON_TOP,),
    "either, half of the worlds each": (INSTEAD, ON_TOP),
}


@dataclass(frozen=True)
class Times:
    """A change for `do`: what the system has, times a factor."""

    additive: ClassVar[bool] = False
    by: float

    def apply(self, value: Tensor) -> Tensor:
        """Return the value instead of the one that the system has."""
        return value * self.by


def recorded(run: str) -> bwm.Trajectories:
    """One run at 20 ms under the structure's names, until the pendulum first stands where a controller balances it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bwm.DataWarning)  # the torque exceeds the stated limit: known of this data set
        data = bwm.data.measured("dfki_simple_pendulum", runs=[run])
    data = data.differentiate({"velocity": "position"}, window=5)
    stands = (data.state[0, :, 0].abs() > math.pi - 0.1).int()
    cut = run not in ("ddp", "direct_collocation") and bool(stands.any())
    end = int(stands.argmax()) if cut else int(data.lengths[0])
    schema = Pendulum(time_step=0.02).schema
    return bwm.Trajectories(schema, state=data.state[:, : end + 1].double(), action=data.action[:, :end].double())


def pendulum(runs: Iterable[str], *, inference: Inference) -> bwm.BayesianDynamics:
    """The pendulum of notebooks/system_identification.py: its numbers given runs, which differ by some percent."""
    population = {
        "mass": bwm.Hierarchical(LogNormal(math.log(0.7), 0.5), LogNormal(math.log(0.05), 0.5), relative=True),
        "damping": bwm.Hierarchical(Normal(0.0, 0.1), LogNormal(math.log(0.02), 0.5)),
        "friction": bwm.Hierarchical(LogNormal(math.log(0.2), 0.7), LogNormal(math.log(0.3), 0.5), relative=True),
    }
    length = LogNormal(math.log(0.5), 0.2)
    model = bwm.BayesianDynamics(
        structure=Pendulum(**population, length=length, integrator=Leapfrog(), time_step=0.02),
        inference=inference,
        noise=0.0,
        sensor_noise={"angle": LogNormal(math.log(0.003), 1.0)},
        belief={"velocity": Normal(0.0, 10.0)},
        window=25,
    )
    parts = [recorded(run) for run in runs]
    data = bwm.Trajectories(parts[0].schema, state=[p.state[0] for p in parts], action=[p.action[0] for p in parts])
    return model.fit(data, seed=0, progress=False)


def with_mass(model: bwm.DynamicsModel, factors: tuple[float, ...]) -> bwm.Worlds:
    """Worlds whose mass is what it is known to be times how the payload changed; with several factors by turns."""
    worlds = model.draw(WORLDS, generator=torch.Generator().manual_seed(0))
    if len(factors) == 1:
        return bwm.causal.intervene(worlds, bwm.do({"mass.location": Times(factors[0])}))
    by = torch.tensor(factors, dtype=worlds.dtype).repeat(WORLDS // len(factors))
    return worlds.replace(**{"mass.location": by * worlds.parameters["mass.location"]})


@dataclass(frozen=True)
class Scores:
    """Scores of the angle by horizon: ``crps`` and ``error`` by window too, ``coverage`` by level."""

    crps: Tensor
    error: Tensor
    coverage: dict[float, Tensor]
    block: Tensor
    p_value: float


def forecast_scores(model: bwm.Worlds, run: bwm.Trajectories, *, levels: tuple[float, ...] = (0.5, 0.9)) -> Scores:
    """Forecast a second of a run from the 0.2 s before it, again and again.

    Longer histories make a pendulum without process noise too sure of its velocity: with 0.2 s the standard run's own
    forecasts are calibrated.
    """
    parts = list(
        diagnostics.forecast(
            model, run, horizon=HORIZON, stride=STRIDE, worlds=WORLDS, particles=PARTICLES, history=HISTORY, seed=0
        )
    )
    with warnings.catch_warnings():
        # one recording: its windows are not independent, and errors of these scores are bootstrapped below, by block
        warnings.simplefilter("ignore", bwm.UndefinedWarning)
        warnings.simplefilter("ignore", bwm.EstimateWarning)
        found = diagnostics.calibration_of_parts(parts, levels=levels, bootstrap=10)
    crps = torch.cat([diagnostics.crps(p.predictive, p.outcomes)[..., 0] for p in parts])
    error = torch.cat([(p.predictive.mean - p.outcomes)[..., 0] for p in parts])
    covered = found.coverage.sel(variable="angle")
    coverage = {v: torch.from_numpy(covered.sel(level=v).transpose("horizon").values) for v in levels}
    # windows that begin within the same 1.2 s go together
    block = torch.arange(len(crps)) * STRIDE // (HORIZON + HISTORY)
    return Scores(crps, error, coverage, block, float(found.attrs["calibration_p_value"]))


def whole_run(model: bwm.Worlds, run: bwm.Trajectories, *, steps: tuple[int, ...] = (100, 200)) -> list[float]:
    """Root mean square error of the angle when a whole run is forecast from its start, at rest, over so many steps."""
    start = run.state[0, 0].clone()
    start[1] = 0.0
    found = bwm.rollout(
        model,
        start,
        run.action[0],
        worlds=WORLDS,
        particles=PARTICLES,
        generator=make_generator(torch.Generator().manual_seed(0)),
    )
    error = found.mean[:, 0] - run.state[0, 1:, 0]
    return [float(error[:n].square().mean().sqrt()) for n in steps]


def difference(better: Tensor, than: Tensor, block: Tensor) -> tuple[float, float, float]:
    """Mean difference of two scores of the same windows or cells, with a 95 % bootstrap interval over blocks."""
    found = diagnostics.cluster_bootstrap(better - than, block, generator=torch.Generator().manual_seed(0))
    return float(found.value), float(found.lower), float(found.upper)


def payload_tables(model: bwm.DynamicsModel) -> list[str]:
    """Tables of the run with 1 kg, and of the one with the standard payload, on which the model was fitted."""
    usual, heavy = recorded("energy_shaping"), recorded("energy_shaping_1kg")
    at = torch.tensor(AT) - 1
    head = " | ".join(f"{0.02 * h:.1f} s" for h in AT)
    lines = [f"| mass | score | {head} |", "|---|---|" + "---|" * len(AT)]
    before = None
    rows = [("standard run, in the training data", usual, (1.0,))]
    rows += [(f"1 kg run, {name}", heavy, factors) for name, factors in READINGS.items()]
    tails = []
    for name, run, factors in rows:
        worlds = with_mass(model, factors)
        found = forecast_scores(worlds, run)
        before = found if run is heavy and before is None else before
        cells = {"RMSE (rad)": found.error.square().mean(0).sqrt(), "CRPS (rad)": found.crps.mean(0)}
        cells |= {f"coverage of {100 * v:.0f} %": values for v, values in found.coverage.items()}
        for score, values in cells.items():
            digits = 2 if "coverage" in score else 4
            lines.append(f"| {name} | {score} | " + " | ".join(f"{v:.{digits}f}" for v in values[at]) + " |")
        if run is heavy and found is not before and before is not None:
            changes = [difference(found.crps[:, h], before.crps[:, h], found.block) for h in at.tolist()]
            shown = " | ".join(f"{v:+.4f} [{low:+.4f}, {high:+.4f}]" for v, low, high in changes)
            lines.append(f"| {name} | CRPS less that without | {shown} |")
        two, four = whole_run(worlds, run)
        tails.append(f"| {name} | {two:.3f} | {four:.3f} | {found.p_value:.3f} |")
    lines += ["", "| | RMSE of 2 s from rest (rad) | of 4 s | calibration p |", "|---|---|---|---|", *tails]
    return lines


# --- single cells -----------------------------------------------------------------------------------------------------

# what each reagent acts on, where that was measured; icam2 has no measured target, cd3_cd28 alone is the baseline
TARGET = {"aktinhib": "akt", "g0076": "pkc", "u0126": "mek", "pma": "pkc", "b2camp": "pka"}
BASELINE, ALL = ("cd3_cd28",), ("cd3_cd28", "icam2", *TARGET)
# how active MEK is: what ERK sees of it
ACTIVITY = "mek_activity"
MEK = [("mek", ACTIVITY)]
ROWS = 800  # of a Gaussian process
GROUPS, SHARE = 8, 1024  # of draws; how groups differ is the error of drawing


class Empirical(Distribution):
    """The law of values that were measured, for `do`."""

    arg_constraints: ClassVar[dict] = {}

    def __init__(self, values: Tensor) -> None:
        super().__init__(validate_args=False)
        self.values = values.sort().values

    def icdf(self, value: Tensor) -> Tensor:
        """Return quantiles."""
        return self.values[(value * len(self.values)).long().clamp(0, len(self.values) - 1)]


def consensus() -> dict[str, tuple[str, ...]]:
    """Parents of each protein in the consensus graph; the activity of MEK stands between MEK and ERK."""
    text = bwm.data.measured_file("sachs", "consensus_graph.txt").read_text()
    edges = [tuple(line.split(". ")[1].split(" --> ")) for line in text.splitlines() if " --> " in line]
    graph = bwm.causal.CausalGraph(edges)  # refuses cycles
    parents = {name: tuple(sorted(graph.parents(name))) for name in graph.order}
    parents["erk"] = tuple(ACTIVITY if p == "mek" else p for p in parents["erk"])
    return parents


def cells(runs: Iterable[str]) -> bwm.Trajectories:
    """Logarithms of the proteins of all cells of some conditions, and the activity of MEK, which is MEK in training."""
    data = bwm.data.measured("sachs", runs=list(runs))
    variables = [*data.schema.state, bwm.Variable(ACTIVITY)]
    mek = data.schema.state.column("mek")
    return bwm.Trajectories(
        bwm.Schema(state=variables, time_step=1.0), state=torch.cat((data.state, data.state[..., mek : mek + 1]), -1)
    )


def linear() -> bwm.DynamicsModel:
    """A linear function with Gaussian noise, conjugate."""
    line = bwm.structures.Linear(A=0.0, B=Normal(0.0, 10.0), c=Normal(0.0, 10.0))
    return bwm.BayesianDynamics(structure=line, inference=Conjugate())


def learned(runs: Iterable[str], family: str) -> bwm.causal.StructuralModel:
    """A mechanism for each protein along the consensus graph, each from the conditions that leave it alone."""
    mechanisms: dict[str, bwm.causal.Mechanism | bwm.causal.Learned] = {}
    parents = consensus()
    for name, causes in parents.items():
        rows = cells(run for run in runs if TARGET.get(run) != name)
        model: bwm.DynamicsModel = linear()
        if family == "GP" and causes:
            chosen = permutation(len(rows), torch.Generator().manual_seed(0))[:ROWS]
            rows, model = rows[chosen.sort().values], bwm.GaussianProcess(restarts=1)
        one = {other: bwm.causal.Mechanism(lambda: 0.0) for other in rows.schema.state.columns}
        one[name] = bwm.causal.Learned(model, parents=causes)
        fitted = bwm.causal.StructuralModel(one, schema=rows.schema).fit(rows, seed=0, progress=False)
        mechanisms[name] = bwm.causal.Learned(fitted.regressions[name], parents=causes)
    mechanisms[ACTIVITY] = bwm.causal.Mechanism(lambda mek: mek)
    return bwm.causal.StructuralModel(mechanisms, schema=cells(BASELINE).schema)


def draws(model: bwm.DynamicsModel, *interventions: bwm.Intervention) -> dict[str, Tensor]:
    """Cells that a model predicts under interventions: by protein, shape (groups, draws)."""
    system = bwm.causal.intervene(model, *interventions) if interventions else model
    blank, g = torch.zeros(model.schema.state.size, dtype=torch.float64), torch.Generator().manual_seed(0)
    found = bwm.rollout(
        system, blank, torch.zeros(1, 0), worlds=WORLDS, particles=GROUPS * SHARE // WORLDS, generator=g
    )
    values = found.particles[..., 0, :].reshape(GROUPS, SHARE, -1)
    return dict(zip(model.schema.state.columns, values.unbind(-1), strict=True))


def scores(samples: Tensor, observed: Tensor) -> Tensor:
    """CRPS of each cell under marginal laws given by draws (groups, draws), shape (groups, cells); lower is better."""
    near = (samples[..., None] - observed).abs().mean(-2)
    # how far draws are apart is the same for all cells
    apart = samples.abs().mean(-1) - diagnostics.crps_samples(samples.mT, samples.new_zeros(len(samples)))
    return near - apart[:, None]


def change(new: Tensor, old: Tensor) -> tuple[float, float, float]:
    """Mean difference of scores (groups, cells) with a 95 % bootstrap interval over cells and groups of draws."""
    each, g, resamples = new - old, torch.Generator().manual_seed(0), 1000
    groups, chosen = (torch.multinomial(torch.ones(resamples, n), n, replacement=True, generator=g) for n in each.shape)
    means = torch.stack([each[i][:, j].mean() for i, j in zip(groups, chosen, strict=True)])
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return float(each.mean()), low, high


def logs(runs: Iterable[str]) -> dict[str, Tensor]:
    """Logarithms of the proteins that were measured, by name."""
    data = cells(runs)
    return dict(zip(data.schema.state.columns, data.state[:, 1].unbind(-1), strict=True))


def training(reagent: str, which: str) -> tuple[str, ...]:
    """The conditions to learn from when one is held out."""
    return BASELINE if which == "baseline" else tuple(run for run in ALL if run != reagent)


def downstream(target: str) -> list[str]:
    """The proteins that the consensus graph has below a target."""
    graph = bwm.causal.CausalGraph([(p, name) for name, parents in consensus().items() for p in parents] + MEK)
    return [name for name in graph.order if name in graph.descendants(target) - {target, ACTIVITY}]


def cell_tables(families: tuple[str, ...] = ("linear", "GP")) -> list[str]:
    """Each reagent held out, the law of its target given: CRPS by protein, less that of the observational model."""
    ways = [(which, family) for which in ("baseline", "all others") for family in families]
    models = {("baseline", family): learned(BASELINE, family) for family in families}
    head = " | ".join(f"{which}, {family}" for which, family in ways)
    lines = ["| reagent: target | protein | CRPS, observational | of its own law | change by the intervention: " + head]
    lines = [f"{lines[0]} |", "|---|---|---|---|" + "---|" * len(ways)]
    counts, sums = {way: [0, 0, 0] for way in ways}, {way: [0.0, 0.0] for way in ways}
    for reagent, target in TARGET.items():
        held = logs([reagent])
        models |= {(w, f): learned(training(reagent, w), f) for w, f in ways if w != "baseline"}
        law = bwm.do({target: Empirical(held[target])})
        before = {way: draws(models[way]) for way in ways}
        after = {way: draws(models[way], law) for way in ways}
        for protein in downstream(target):
            seen, shown = held[protein], []
            without = scores(before[ways[0]][protein], seen)
            for way in ways:
                old, new = scores(before[way][protein], seen), scores(after[way][protein], seen)
                value, low, high = change(new, old)
                sums[way] = [total + float(part.mean()) for total, part in zip(sums[way], (old, new), strict=True)]
                counts[way][0 if high < 0 else 2 if low > 0 else 1] += 1
                shown.append(f"{value:+.3f} [{low:+.3f}, {high:+.3f}]")
            own = scores(seen[None], seen).mean()
            cellwise = f"| {reagent}: {target} | {protein} | {without.mean():.3f} | {own:.3f} | "
            lines.append(cellwise + " | ".join(shown) + " |")
    totals = " | ".join(f"{better}, {same}, {worse}" for better, same, worse in counts.values())
    lines.append(f"| better, undecided, worse | | | | {totals} |")
    pairs = sum(map(sum, counts.values())) / len(ways)
    means = " | ".join(f"{old / pairs:.3f}, {new / pairs:.3f}" for old, new in sums.values())
    return [*lines, f"| mean CRPS, observational and with the intervention | | | | {means} |"]


def reach_table() -> list[str]:
    """How far means move from the baseline under each reagent: its target, what lies below it, and everything else."""
    base = logs(BASELINE)
    lines = ["| reagent: target | of the target | downstream, mean size | elsewhere, mean size |", "|---|---|---|---|"]
    for reagent, target in TARGET.items():
        moved = {name: float(values.mean() - base[name].mean()) for name, values in logs([reagent]).items()}
        below = downstream(target)
        others = [name for name in moved if name not in (*below, target, ACTIVITY)]
        sizes = [sum(abs(moved[n]) for n in names) / len(names) if names else math.nan for names in (below, others)]
        lines.append(f"| {reagent}: {target} | {moved[target]:+.2f} | {sizes[0]:.2f} | {sizes[1]:.2f} |")
    return lines


def slope(runs: Iterable[str]) -> tuple[float, float]:
    """Least-squares slope of log ERK on log MEK given log PKA, and its standard error."""
    data = logs(runs)
    features = torch.stack((torch.ones_like(data["mek"]), data["mek"], data["pka"]), -1)
    found = torch.linalg.lstsq(features, data["erk"][:, None]).solution[:, 0]
    variance = (data["erk"] - features @ found).square().sum() / (len(features) - 3)
    return float(found[1]), float((variance * torch.linalg.inv(features.mT @ features)[1, 1]).sqrt())


def inhibitor_table(families: tuple[str, ...] = ("linear", "GP")) -> list[str]:
    """ERK under the inhibitor of MEK: by a hard law of MEK, and by its activity scaled by 1 - p."""
    shares = (0.25, 0.5, 0.75, 0.9)
    head = " | ".join(["law of MEK", *(f"p = {p}" for p in shares)])
    lines = [
        f"| learned from | slope | family | score | observational | {head} |",
        "|---|---|---|---|---|---|" + "---|" * 4,
    ]
    base, held = logs(BASELINE), logs(["u0126"])
    for name, runs in {
        "baseline": BASELINE,
        "all but u0126": training("u0126", "all"),
        "nor g0076": tuple(run for run in ALL if run not in ("u0126", "g0076")),
    }.items():
        value, error = slope(runs)
        for family in families:
            model = learned(runs, family)
            usual = bwm.do(mek=Empirical(base["mek"]))
            ways = [[], [bwm.do(mek=Empirical(held["mek"]))]]
            ways += [[usual, bwm.do({ACTIVITY: bwm.causal.shift(math.log1p(-p))})] for p in shares]
            erk = [draws(model, *way)["erk"] for way in ways]
            label = f"| {name} | {value:.2f} +- {error:.2f} | {family} "
            lines.append(f"{label}| mean log ERK | " + " | ".join(f"{x.mean():.2f}" for x in erk) + " |")
            lines.append(f"{label}| CRPS | " + " | ".join(f"{scores(x, held['erk']).mean():.3f}" for x in erk) + " |")
    measured = f"measured: mean log ERK {base['erk'].mean():.2f} at baseline, {held['erk'].mean():.2f} under u0126; "
    measured += f"mean log MEK {base['mek'].mean():.2f} and {held['mek'].mean():.2f}; "
    measured += f"CRPS of ERK's own law {scores(held['erk'][None], held['erk']).mean():.3f}"
    return [*lines, "", measured]


def main() -> None:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("build/measured_interventions.md"))
    parser.add_argument("--parts", nargs="+", default=["payload", "cells"])
    parser.add_argument("--draws", type=int, default=250, help="of each of the pendulum's 16 chains")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []
    if "payload" in args.parts:
        model = pendulum(RUNS, inference=HMC(chains=16, warmup=150, draws=args.draws))
        lines += ["## Pendulum", "", *payload_tables(model), ""]
    if "cells" in args.parts:
        lines += [
            "## Cells",
            "",
            *reach_table(),
            "",
            *cell_tables(),
            "",
            "## The inhibitor of MEK",
            "",
            *inhibitor_table(),
            "",
        ]
    text = "\n".join(lines)
    print(text)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    args.file.write_text(text)


if __name__ == "__main__":
    main()
