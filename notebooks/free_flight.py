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
# # How fast does a cube fall? An interval that is honest
#
# **Question.** A cube was tossed 400 times onto a table and tracked by cameras (Pfrommer, Halm & Posa 2020). Before it
# touches the table it is in free flight, so that its tracks must hold gravity, 9.81 m/s^2. How large does the data say
# that g is, and can the interval be believed?

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.inference import HMC, Laplace, LinearGaussian

out = Path(os.environ.get("BAYESWM_OUT", "build/free_flight"))
out.mkdir(parents=True, exist_ok=True)
HALF = 0.0524  # m, half the width of the cube
STEP = 1 / 148

# %% [markdown]
# ## The data: free flight
#
# **Rule.** However it is turned, a cube cannot touch the table while its centre is higher than half its diagonal,
# 0.0908 m. A flight is a toss up to the last row before its centre first gets there, less one row more, since tracks were
# smoothed and might know of the contact beforehand. Flights of 10 rows (61 ms) or more count. (Other cuts, up to 5 rows
# earlier, from the 6th row on, or by the height of the lowest corner, change g by less than 0.02.)

# %%
tosses = bwm.data.measured("contactnets_cube")
height = [tosses[i].state[0, :, 2].double() for i in range(len(tosses))]
height = [z[z.isfinite()] for z in height]
at_rest = torch.stack([z[-1] for z in height])
contact = [int((z <= HALF * 3**0.5).double().argmax()) if z.min() <= HALF * 3**0.5 else len(z) for z in height]
flights = [z[: n - 1] for z, n in zip(height, contact, strict=True) if n - 1 >= 10]

schema = bwm.Schema(
    state=[bwm.Variable("z", unit="m"), bwm.Variable("velocity", unit="m/s")],
    observation=[bwm.Variable("z", unit="m")],
    time_step=STEP,
)
data = bwm.Trajectories(schema, observation=[z[:, None] for z in flights])
train, test = data[:235], data[235:]
print(f"{len(data)} flights, {sum(map(len, flights))} rows")

# %% [markdown]
# ## The model: a body that falls
#
# One step of free fall is known exactly. The height is measured with noise; the velocity is not measured. Three ideas of
# what disturbs the tracks:
#
# * **iid**: the camera's errors are independent from row to row, nothing else;
# * **correlated**: the track wanders: the velocity gets a small push in each step (process noise);
# * **hierarchy**: errors are independent, but each toss has a g of its own, around a common one.
#
# The first two have three numbers at most, and 235 flights: the posterior is as good as Gaussian, and Laplace's
# approximation takes seconds. In the hierarchy every toss is a dimension of its own, which takes a sampler a second each;
# every fourth flight is enough.


# %%
def fall(state, _action, _context, parameters):
    z, velocity = state.unbind(-1)
    g = parameters["g"]
    return torch.stack((z + STEP * velocity - g * STEP**2 / 2, velocity - g * STEP + 0 * z), -1)


def model(g, wander, inference):
    return bwm.BayesianDynamics(
        structure=bwm.structures.FromFunction(fall, schema=schema, parameters={"g": g}, name="fall"),
        inference=inference,
        noise={"z": 0.0, "velocity": wander},
        sensor_noise={"z": LogNormal(np.log(1e-4), 1.0)},
        belief={"velocity": Normal(0.0, 5.0)},  # a flight's height begins at its first measurement
        filtering=LinearGaussian(),
    )


wide = LogNormal(np.log(9.81), 0.1)
each = bwm.Hierarchical(wide, LogNormal(np.log(0.1), 1.0))
push = LogNormal(np.log(1e-3), 1.0)
models = {
    "iid": model(wide, 0.0, Laplace(starts=2)).fit(train, seed=0, progress=False),
    "correlated": model(wide, push, Laplace(starts=2)).fit(train, seed=0, progress=False),
    "hierarchy": model(each, 0.0, HMC(chains=16, warmup=100, draws=260)).fit(train[::4], seed=0, progress=False),
}


# %%
def interval(draws, level=0.9):
    tail = (1 - level) / 2
    return torch.quantile(draws.flatten().double(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()


def common(name):
    """Draws of the g that all tosses share: of the hierarchy that of the population."""
    found = models[name].posterior
    return found.get("g.location", found["g"]).flatten()


rows = {}
for name in models:
    g, (low, high) = common(name), interval(common(name))
    rows[name] = {"mean": g.mean().item(), "sd": g.std().item(), "90 % from": low, "to": high}
    rows[name]["flights"] = len(train[::4]) if name == "hierarchy" else len(train)
table = pd.DataFrame(rows).T
spread = models["hierarchy"].posterior["g.scale"].mean().item()
print(f"tosses of the hierarchy differ by {spread:.3f} m/s^2 (standard deviation)")
table.round(4)

# %% [markdown]
# The iid posterior is certain to 2 mm/s^2, and excludes 9.81 by a hundred of its standard deviations. The correlated one is
# three times as wide. That of the hierarchy saw a quarter of the flights, so that twice the iid width would be its due: it
# is six times as wide as that. (A few odd flights are among the quarter, and widen it; over all of them the spread is
# 0.10, and the ratio 3 to 4.)

# %%
assert rows["iid"]["mean"] + 20 * rows["iid"]["sd"] < 9.81
assert 2.5 < rows["correlated"]["sd"] / rows["iid"]["sd"] < 5
assert 2.5 < rows["hierarchy"]["sd"] / 2 / rows["iid"]["sd"] < 8

# %% [markdown]
# ## Do the diagnostics object?
#
# They do, three times.
#
# **Residuals** of each flight from a parabola with the common g ought to be independent.


# %%
def residuals(z, g):
    t = STEP * torch.arange(len(z), dtype=torch.float64)
    line = torch.stack((torch.ones_like(t), t - t.mean()), -1)
    left = z + g * (t - t.mean()).square() / 2
    return left - line @ torch.linalg.lstsq(line, left[:, None]).solution[:, 0]


def lag_one(series):
    return sum((r[1:] @ r[:-1]).item() for r in series) / sum((r @ r).item() for r in series)


generator = torch.Generator().manual_seed(0)
mean = rows["iid"]["mean"]
seen = lag_one([residuals(z, mean) for z in flights])
white = [torch.randn(len(z), generator=generator, dtype=torch.float64) for z in flights]
expected = lag_one([residuals(z, 0.0) for z in white])
print(f"correlation of neighbouring residuals: {seen:.2f}; if they were independent {expected:.2f}")
assert seen > 0.4

# %% [markdown]
# **Tosses among themselves.** What does one flight alone say of g, with the noise that a model found in all of them? The
# log likelihood of a flight is a parabola in g: its top is the flight's estimate, its curvature the error that the model
# admits.


# %%
def one_by_one(noise, sensor_noise):
    """Return estimate and standard error of g from each flight alone."""
    mid, away = 9.6, 0.1
    heights = []
    for g in (mid - away, mid, mid + away):
        known = bwm.KnownDynamics(
            structure=bwm.structures.FromFunction(fall, schema=schema, parameters={"g": g}, name="fall"),
            noise={"velocity": noise},
            sensor_noise={"z": sensor_noise},
            belief={"velocity": Normal(0.0, 5.0)},
            filtering=LinearGaussian(),
            dtype=torch.float64,
        ).draw(1)
        begun = known.start(known.beginning(data))
        steps = known.log_likelihood(begun, data.observation[:, 1:], data.action, data.step_context())
        heights.append(steps.sum(-1)[0, 0])
    low, top, high = heights
    curvature = (2 * top - low - high) / away**2
    return mid + (high - low) / (2 * away) / curvature, curvature.rsqrt()


fitted = {k: {n: v[..., -1].mean().item() for n, v in m.posterior.items() if "noise" in n} for k, m in models.items()}
alone = {name: one_by_one(fitted[name].get("process_noise", 0.0), fitted[name]["sensor_noise"]) for name in models}
estimate, error = alone["iid"]
ratio = ((estimate - mean) / error).square().mean().sqrt().item()
print(f"g scatters by {estimate.std():.3f} over flights; in units of the iid model's error {ratio:.1f}")
assert ratio > 2

# %% [markdown]
# If the errors were honest, nine in ten 90 % intervals of **groups of ten flights** would hold the mean of all.


# %%
def groups_covered(name):
    estimate, error = alone[name]
    scatter = spread if name == "hierarchy" else 0.0
    weight = 1 / (error.square() + scatter**2)
    whole = (weight * estimate).sum() / weight.sum()
    by_ten = [v[:350].view(35, 10).sum(-1) for v in (weight * estimate, weight)]
    return ((by_ten[0] / by_ten[1] - whole).abs() * by_ten[1].sqrt() < 1.645).double().mean().item()


covered = {name: groups_covered(name) for name in models}
print({name: round(share, 2) for name, share in covered.items()})
assert covered["iid"] < 0.6
assert min(covered["correlated"], covered["hierarchy"]) > 0.8  # of 35 groups at 0.9, fewer than 28 have p = 0.03

# %% [markdown]
# **Forecasts** of held-out flights from their first six rows, up to eight steps (54 ms) ahead: the share inside the 90 %
# interval falls step by step for the iid model and stays for the others. In a hierarchy each new toss brings its own g,
# of which its first rows tell a little.

# %%
long = [z[:14] for z in flights[235:] if len(z) >= 14]
past = bwm.Trajectories(schema, observation=[z[:6, None] for z in long])
came = torch.stack([z[6:, None] for z in long])
scores = {}
for name, one in models.items():
    ahead = bwm.rollout(one, past, torch.zeros(8, 0), worlds=64, particles=40, generator=generator, of="measurement")
    scores[name] = bwm.diagnostics.calibration_of(ahead, came)
coverage = pd.DataFrame({name: s["coverage"].sel(level=0.9, variable="z").to_series() for name, s in scores.items()})
print(coverage.round(2).to_string())
assert coverage["iid"].iloc[-1] < 0.8
assert (coverage[["correlated", "hierarchy"]].iloc[-1] > 0.83).all()

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for name, s in scores.items():
    s = s.sel(level=0.9, variable="z")
    axes[0].errorbar(1e3 * s.time, s.coverage, yerr=s.coverage_se, capsize=2, label=name)
axes[0].axhline(0.9, color="k", linestyle=":")
axes[0].set(xlabel="time ahead (ms)", ylabel="coverage of 90 % intervals")
axes[0].legend()
inside = estimate[(estimate - mean).abs() < 0.4]
axes[1].hist(inside.numpy(), bins=30, density=True, color="0.85", label="single flights")
for name in models:
    axes[1].hist(common(name).numpy(), bins=40, density=True, histtype="step", label=name)
axes[1].axvline(9.81, color="k", linestyle=":")
axes[1].set(xlabel="g (m/s$^2$)", yscale="log", ylim=(0.3, None))
axes[1].legend()
figure.savefig(out / "free_flight.png", dpi=120)

# %% [markdown]
# ## Honest for what?
#
# The correlated and the hierarchical interval are honest about *these tracks*: of groups of ten tosses, about nine
# intervals in ten hold the mean of all, and of the iid intervals four in ten. Where the next toss will be is another
# question, which the hierarchy answers: its g is drawn from the population.

# %%
drawn = models["hierarchy"].posterior["g.scale"].flatten()
new_toss = common("hierarchy") + drawn * torch.randn(len(drawn), generator=generator, dtype=torch.float64)
low, high = interval(new_toss)
print(f"g of a new toss: 90 % from {low:.2f} to {high:.2f}")
share = ((estimate[235:] > low) & (estimate[235:] < high)).double().mean().item()
print(f"of the flights that no model saw {share:.2f} have their least-squares g inside")
assert share > 0.85

# %% [markdown]
# But the mean of all tosses is known to less than 0.01, and it is 9.60, not 9.81. No noise that differs
# from toss to toss can explain that: it would cancel over hundreds of tosses. What all tosses share is the **unit of length**. And
# there the recording testifies against itself: a cube at rest has its centre half a width above the table, and it lies
# lower.

# %%
scale = at_rest.mean().item() / HALF
print(f"centre at rest: {scale:.4f} half-widths above the table, sd over tosses {at_rest.std().item() / HALF:.4f}")
print(f"what g would need: {rows['correlated']['mean'] / 9.81:.4f}")

# %% [markdown]
# Heights are recorded too small by 2.2 %, says the table; by 2.1 %, says gravity. This was found after the fact, by
# looking for what could explain 9.60; it explains, and proves nothing. Where the table is was measured too, and how well we
# do not know: half a millimetre is 1 %, which we assume. With that in the model, as a scale that all tosses share, the
# interval is honest about nature.

# %%
draws = models["correlated"].posterior["g"].flatten().double()
scales = scale + 0.01 * torch.randn(len(draws), generator=generator, dtype=torch.float64)
low, high = interval(draws / scales)
print(f"g = {(draws / scales).mean():.2f} +- {(draws / scales).std():.2f} m/s^2, 90 % from {low:.2f} to {high:.2f}")
assert low < 9.81 < high

# %% [markdown]
# **Answer.** The tracks say 9.60 +- 0.01 m/s^2 in their own unit of length, once their noise is allowed to wander or each
# toss to have a g of its own; the iid model's error of 0.002 is refuted by residuals, by the spread of tosses and by
# forecasts. In metres g is 9.8 +- 0.1: what limits it is the ruler, and no number of tosses helps.
