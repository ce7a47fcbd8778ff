# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Can I trust my world model?
#
# **Question.** A model of a real pendulum predicts the next 20 ms with honest intervals. May a planner believe what it
# says about the next half second? If not: can that be found, repaired, and watched once the model is at work?
#
# The pendulum is DFKI's (BSD-3), four swing-ups at 20 ms. A run is the unit of everything: whatever is judged, is judged
# on a run that neither the model nor its repair has seen.

# %%
import math
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.diagnostics import Monitor, Scale, calibration_of_parts, forecast, report_of
from bayeswm.inference import Laplace
from bayeswm.structures import Leapfrog, Pendulum

out = Path(os.environ.get("BAYESWM_OUT", "build/trust"))
out.mkdir(parents=True, exist_ok=True)

PLANNED = ["ddp", "direct_collocation"]
RUNS = [*PLANNED, "energy_shaping", "sac"]
HORIZON, LEVEL = 25, 0.9


def recorded(run):
    """One run at 20 ms; feedback runs until the pendulum first stands, from where hands push it."""
    with warnings.catch_warnings():
        # the recorded torque exceeds the stated limit of 1 N m: known of this data set
        warnings.simplefilter("ignore", bwm.DataWarning)
        data = bwm.data.measured("dfki_simple_pendulum", runs=[run])
    data = data.differentiate({"velocity": "position"}, window=5)
    stands = (data.state[0, :, 0].abs() > math.pi - 0.1).int()
    end = int(stands.argmax()) if run not in PLANNED and bool(stands.any()) else int(data.lengths[0])
    schema = Pendulum(time_step=0.02).schema
    return bwm.Trajectories(schema, state=data.state[:, : end + 1].double(), action=data.action[:, :end].double())


data = {run: recorded(run) for run in [*RUNS, "energy_shaping_1kg"]}
print({run: trajectory.horizon for run, trajectory in data.items()})

# %% [markdown]
# ## A model that looks fine
#
# A rod with a weight, mass and length unknown, and Gaussian noise in every step, whose size is learned. Friction was
# left out; the noise will cover for it.

# %%
ROD = {"mass": LogNormal(math.log(0.7), 0.5), "length": LogNormal(math.log(0.5), 0.2)}


def fitted(runs, laws=ROD):
    """The model given some runs."""
    together = bwm.Trajectories(
        data[runs[0]].schema,
        state=[data[r].state[0] for r in runs],
        action=[data[r].action[0] for r in runs],
    )
    structure = Pendulum(**laws, integrator=Leapfrog(), time_step=0.02)
    return bwm.BayesianDynamics(structure=structure, inference=Laplace(starts=2)).fit(together, seed=0, progress=False)


def ahead(model, run, *, stride=5, horizon=HORIZON):
    """Forecasts of half a second along a run, which bears its own number."""
    for part in forecast(model, data[run], horizon=horizon, stride=stride, worlds=40, particles=10):
        yield part._replace(recording=torch.full_like(part.recording, list(data).index(run)))


def others(*runs):
    """The usual runs but these."""
    return [run for run in RUNS if run not in runs]


with warnings.catch_warnings():
    # errors rest on four recordings: the text says so once, for all that follows
    warnings.simplefilter("ignore", bwm.EstimateWarning)
    # each run forecast by a model of the other three
    before = [part for run in RUNS for part in ahead(fitted(others(run)), run)]
    found = report_of(before, level=LEVEL)
print(found.attrs["verdict"])
bwm.plot.report(found).savefig(out / "report.png", dpi=110)
# %% [markdown]
# One step ahead the intervals hold. Twenty steps ahead a third of what happens lies outside: friction pushes in one
# direction all the time, and the model takes it for noise, whose pushes cancel. The test of calibration over all steps
# and the tubes say so too.
#
# What would have hidden this: a one-step test, or a mean over all steps.

# %%
one, twenty = (found.sel(level=LEVEL, horizon=h) for h in (1, 20))
for name, at in (("1 step", one), ("20 steps", twenty)):
    ends = zip(at.coverage_lower.values.round(2).tolist(), at.coverage_upper.values.round(2).tolist(), strict=True)
    print(f"inside, {name} ahead: {at.coverage.values.round(2)}, 95 % intervals over runs {list(ends)}")
assert (one.coverage_lower <= LEVEL).all()
assert (one.coverage_upper >= LEVEL).all()
assert (twenty.coverage_upper < LEVEL).all()
assert found.attrs["calibration_p_value"] < 0.01

# %% [markdown]
# ## Repaired
#
# Two remedies, which go together. The better one is a better model: friction, viscous and dry, is added to what is
# unknown. The other widens intervals to what experience says: `Scale` stretches the particles of every forecast around
# their mean, by a factor for each step and variable. The factors for a run come from the other three, each forecast by
# a model of the remaining two: nothing of the run itself is used.

# %%
FRICTION = {"damping": Normal(0.0, 0.1), "friction": LogNormal(math.log(0.2), 0.7)}


def repaired(laws):
    """Forecasts of each run by a model of the others, and the maps of outcomes found on the others."""
    plain, maps = {}, {}
    for run in RUNS:
        plain[run] = list(ahead(fitted(others(run), laws), run))
        maps[run] = Scale(level=LEVEL).fit([p for r in others(run) for p in ahead(fitted(others(run, r), laws), r)])
    return plain, maps


def judged(plain, maps=None):
    """The calibration of forecasts, mapped or not."""
    parts = (
        part if maps is None else part._replace(predictive=maps[run](part.predictive))
        for run in RUNS
        for part in plain[run]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bwm.EstimateWarning)
        return calibration_of_parts(parts, levels=[LEVEL])


results, maps = {}, {}
for name, laws in (("rod", ROD), ("rod and friction", {**ROD, **FRICTION})):
    plain, maps[name] = repaired(laws)
    results[name] = judged(plain)
    results[f"{name}, scaled"] = judged(plain, maps[name])

figure, axes = plt.subplots(2, 2, figsize=(11, 6.4), layout="constrained")
for ax, (name, dataset) in zip(axes.flat, results.items(), strict=True):
    bwm.plot.coverage_by_horizon(dataset, level=LEVEL, ax=ax)
    ax.set(title=name, ylim=(0.3, 1.02))
figure.savefig(out / "repaired.png", dpi=110)

# %%
rows = [1, 5, 10, 20, 25]
first = results["rod"].sel(horizon=rows)
for name, dataset in results.items():
    at = dataset.sel(level=LEVEL, horizon=rows)
    for variable in ("angle", "velocity"):
        one = at.sel(variable=variable)
        ends = zip(
            one.coverage_lower.values.round(2).tolist(), one.coverage_upper.values.round(2).tolist(), strict=True
        )
        share = (one.crps / first.crps.sel(variable=variable)).values.round(2)
        width = (one.width / first.width.sel(variable=variable, level=LEVEL)).values.round(2)
        print(f"{name:25s} {variable:8s} {one.coverage.values.round(2)} {list(ends)} width x {width}, CRPS x {share}")
assert (results["rod, scaled"].sel(level=LEVEL, horizon=rows).coverage_lower <= LEVEL).all()
for name in ("rod, scaled", "rod and friction, scaled"):
    at = results[name].sel(level=LEVEL, horizon=rows)
    assert (at.coverage_upper >= LEVEL).all()
    before_scaling = results[name.removesuffix(", scaled")].sel(horizon=rows)
    assert float((at.crps / before_scaling.crps).max()) < 1.02

# %% [markdown]
# Scaled, neither model is too sure at any horizon. The error bars of the rod contain 90 % everywhere; with friction the
# intervals have become a little too cautious (velocity at 25 steps: the error bar begins just above 90 %), because three
# runs say little about how runs differ. Width is what it costs, twice as much at half a second. And the better model's
# score (CRPS) is a third better at the same honesty: calibration is a condition, not an aim.
#
# ## Watched
#
# The better model, scaled, goes to work, and one day somebody screws a kilogram to the rod. A monitor bets against the
# model's coverage, step by step. As long as that is what it should be, the chance that the evidence *ever* passes 20 is
# at most 1 in 20, however long it runs and however forecasts overlap.
#
# A single run is not calibrated as the average of runs is: each has its own friction. So the monitor watches the middle
# half and is told what to tolerate: the smallest of 0, 0.1, 0.2 and 0.3 that causes no alarm on any of the four usual runs,
# each new to its model. The loaded run has no part in that choice.

# %%
laws = {**ROD, **FRICTION}
WATCHED = 5


def along(model, outcome_map, run):
    """Forecasts at every step of a run, scaled, as far ahead as they are watched."""
    for part in ahead(model, run, stride=1, horizon=WATCHED):
        yield part._replace(predictive=outcome_map(part.predictive))


usual = {run: list(along(fitted(others(run), laws), maps["rod and friction"][run], run)) for run in RUNS}
every = Scale(level=LEVEL).fit([p for run in RUNS for p in ahead(fitted(others(run), laws), run)])
loaded = list(along(fitted(RUNS, laws), every, "energy_shaping_1kg"))


def watched(parts, tolerance):
    """The evidence against the middle half of the forecasts, one and five steps ahead."""
    return Monitor(horizon=WATCHED, level=0.5, tolerance=tolerance, horizons=(1, WATCHED)).watch(parts)


for tolerance in (0.0, 0.1, 0.2, 0.3):
    evidence = {run: watched(parts, tolerance) for run, parts in usual.items()}
    largest = {run: float(f"{float(e.evidence.max()):.3g}") for run, e in evidence.items()}
    print(f"tolerance {tolerance}: largest evidence {largest}")
    if all(int(e.alarm_step) < 0 for e in evidence.values()):
        break

# %%
alarm = watched(loaded, tolerance)
step = int(alarm.alarm_step)
print(f"with 1 kg: alarm after {0.02 * (step + 1):.1f} s, largest evidence {float(alarm.evidence.max()):.2g}")
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
for run, dataset in evidence.items():
    axes[0].semilogy(0.02 * (dataset.step + 1), dataset.evidence, label=run)
axes[0].axhline(20, linestyle="--", color="0.5")
axes[0].set(title="the usual runs, each new to its model", xlabel="time (s)", ylabel="evidence")
axes[0].legend(frameon=False)
bwm.plot.evidence_over_time(alarm, ax=axes[1])
axes[1].set_title("with 1 kg on the rod")
figure.savefig(out / "monitor.png", dpi=110)
assert all(int(e.alarm_step) < 0 for e in evidence.values())
assert step >= 0

# %% [markdown]
# ## Answer
#
# One step ahead, yes; half a second ahead, not as fitted. The report finds it in one call, a physical reason is found
# by looking at what was left out, and what remains is measured and added to the intervals. A changed payload is noticed
# while the pendulum is still swinging. What no repair can promise: that the next run is like these four.
