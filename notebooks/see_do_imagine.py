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
# # See, do, imagine: three different questions
#
# **Question.** A world model has learned from a log. What does it say about an action?
#
# * *See*: among the recorded steps with this action, what came next?
# * *Do*: if we act like this now, what will come?
# * *Imagine*: in that episode, which is over, what would have come if we had acted otherwise?
#
# The three have three different answers. First a system so small that each can be checked by hand, then a pendulum in a
# simulator that can be put back and run again with the same noise, so that even the third answer can be checked.

# %%
import math
import os
import warnings
from pathlib import Path

import gymnasium
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.causal import Mechanism, StructuralModel, counterfactual, intervene
from bayeswm.diagnostics import calibration_of
from bayeswm.structures import SemiImplicitEuler

out = Path(os.environ.get("BAYESWM_OUT", "build/see_do_imagine"))
out.mkdir(parents=True, exist_ok=True)
SEEN, DONE, IMAGINED, TRUE = "#7a7a7a", "#1f6fb4", "#d08a00", "#b3261e"

# %% [markdown]
# ## A boat and a skipper
#
# A boat drifts from its line by $s$. The skipper pushes back ($-0.3 s$), feels the gust $e$ on his cheek and leans
# with it, and is not quite regular; the gust moves the boat too:
#
# $$a = -0.3\,s + e + \nu, \qquad s' = 0.9\,s + 0.5\,a + e + w$$
#
# with gust and irregularity of variance 1 and $w$ of 0.01. The log has $s$ and $a$. It does not have the gust.

# %%
boat = StructuralModel(
    {
        "gust": Mechanism(lambda: 0.0, noise=1.0),
        "push": Mechanism(lambda s, gust: -0.3 * s + gust, ("s[t-1]", "gust"), noise=1.0),
        "s": Mechanism(lambda s, push, gust: 0.9 * s + 0.5 * push + gust, ("s[t-1]", "push", "gust"), noise=0.1),
    }
)
start, nothing = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), torch.zeros(0)
PUSH, S = boat.schema.state.column("push"), boat.schema.state.column("s")

# %% [markdown]
# **See.** From $s = 1$, the law of push and next drift together; then conditioned on a push of 1. It was large because
# there was a gust, and the gust is what we see in $s'$.
#
# **Do.** The push is set, whoever felt what: its mechanism is replaced, the gust keeps its law.

# %%
logged = boat.predictive(start, nothing)
mean, covariance = logged.mean[0], logged.covariance[0]
slope = covariance[S, PUSH] / covariance[PUSH, PUSH]
seen = float(mean[S] + slope * (1.0 - mean[PUSH])), float(covariance[S, S] - slope * covariance[PUSH, S])

pushed = intervene(boat, bwm.do(push=1.0)).predictive(start, nothing)
done = float(pushed.mean[0, S]), float(pushed.variance[0, S])
print(f"see a push of 1: mean {seen[0]:.2f}, variance {seen[1]:.2f}")
print(f"do a push of 1:  mean {done[0]:.2f}, variance {done[1]:.2f}")
assert abs(seen[0] - 2.05) + abs(seen[1] - 0.51) < 1e-6
assert abs(done[0] - 1.40) + abs(done[1] - 1.01) < 1e-6

# %% [markdown]
# Seeing is *surer* than doing, and wrong about it: it knows the gust from the push.
#
# **Imagine.** One recorded step: from 1, a push of 1.5 led to 3.4. What if the push had been $-1$? We do not know the gust
# of that moment. But gust and $w$ together moved the boat by $3.4 - 0.9 - 0.75 = 1.75$, and would have done so again.
# Whatever share of it we call gust, the answer is one and the same point.

# %%
for gust in (0.5, 1.7, 2.4):
    step = bwm.Trajectories(boat.schema, state=[[start.tolist(), [gust, 1.5, 3.4]]])
    imagined = counterfactual(boat, step, bwm.do(push=-1.0))
    would, spread = float(imagined.mean[0, 0, S]), float(imagined.variance[0, 0, S])
    print(f"had the gust been {gust}: would have been {would:.2f}, variance {spread:.0f}")
    assert abs(would - 2.15) < 1e-9
    assert spread < 1e-12

# %% [markdown]
# Three lines through one cloud: what is seen has slope 1, what is done 0.5, and what would have been lies on a line of
# slope 0.5 as well, but through *this* point.

# %%
g = torch.Generator().manual_seed(0)
cloud = bwm.rollout(boat, start, torch.zeros(1, 0), particles=800, generator=g).particles[0, :, 0]
figure, ax = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
ax.scatter(cloud[:, PUSH], cloud[:, S], s=7, color=SEEN, alpha=0.35, linewidth=0, label="log of steps from s = 1")
line = torch.tensor([-3.0, 3.0], dtype=torch.float64)
ax.plot(
    line, mean[S] + slope * (line - mean[PUSH]), color=SEEN, linewidth=2, label="see: mean of s' where the push was"
)
ax.plot(line, 0.9 + 0.5 * line, color=DONE, linewidth=2, label="do: mean of s' under a push that is set")
ax.plot(line, 3.4 + 0.5 * (line - 1.5), "--", color=IMAGINED, label="imagine: this step under other pushes")
ax.plot(1.5, 3.4, "o", color="k", markersize=8, label="what happened")
ax.plot(-1.0, 2.15, "o", color=IMAGINED, markersize=8, label="what would have, with a push of -1")
ax.set(xlabel="push", ylabel="next drift s'", xlim=(-3, 3), ylim=(-2.5, 5))
ax.legend(frameon=False, fontsize=8, loc="upper left")
figure.savefig(out / "boat.png", dpi=120)

# %% [markdown]
# ## A pendulum that can be put back
#
# Gymnasium's `Pendulum-v1`, with noise of our own on angle and velocity after every step, which we keep. To imagine is to
# ask what the same noise would have done under other actions; this simulator can be put back to the start and show it.

# %%
NOISE, STEPS, OFF = torch.tensor([0.01, 0.1], dtype=torch.float64), 60, 10
env = gymnasium.make("Pendulum-v1").unwrapped
env.reset(seed=0)


def run(start, actions, noise):
    """Put the simulator at a start; return states (H + 1, 2) and torques (H, 1) under this noise."""
    states, taken = [start], []
    for t, eps in enumerate(noise):
        torque = actions(states[-1], t) if callable(actions) else actions[t]
        env.state = states[-1].numpy()
        env.step(torque.numpy())
        states.append(torch.from_numpy(env.state) + NOISE * eps)
        taken.append(torque)
    return torch.stack(states), torch.stack(taken)


def recorded(episodes, seed):
    """Episodes of a policy that pumps energy and explores, with the noise that they had."""
    g = torch.Generator().manual_seed(seed)
    begin = torch.randn(episodes, 2, generator=g, dtype=torch.float64) + torch.tensor([math.pi, 0.0])
    noise = torch.randn(episodes, STEPS, 2, generator=g, dtype=torch.float64)
    held = (3 * torch.rand(episodes, STEPS // 5, 1, generator=g, dtype=torch.float64) - 1.5).repeat_interleave(5, 1)
    made = [
        run(x, lambda x, t, u=u: (0.5 * x[1].sign() + u[t]).clamp(-2, 2), eps)
        for x, u, eps in zip(begin, held, noise, strict=True)
    ]
    states, torques = (torch.stack(v) for v in zip(*made, strict=True))
    with warnings.catch_warnings():
        # the simulator cuts the speed at 8 rad/s, our noise comes after
        warnings.simplefilter("ignore", bwm.DataWarning)
        data = bwm.Trajectories(bwm.structures.Pendulum.gymnasium().schema, state=states, action=torques)
    return data, noise


train, _ = recorded(10, seed=0)
factual, noise = recorded(10, seed=1)
train, factual

# %% [markdown]
# **What we ask.** In each of ten episodes that no model has learned from: what if the motor had been off from 0.5 s on?
# The simulator knows: it is put back to the start, and replays the noise.

# %%
off = factual.action.clone()
off[:, OFF:] = 0.0
truth = torch.stack([run(factual.state[i, 0], off[i], noise[i])[0] for i in range(len(factual))])
motor_off = bwm.do({"torque": 0.0}, steps=slice(OFF, None))

known = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise={"angle": 0.01, "velocity": 0.1})
error = float((counterfactual(known, factual, motor_off).mean - truth[:, 1:]).abs().max())
print(f"a model that is the simulator itself: largest error {error:.0e}")
assert error < 1e-9

# %% [markdown]
# **Three models** of the same ten other episodes: a Gaussian process, an ensemble of networks, and the equations of a
# rod of which mass, inertia and damping are not known.


# %%
def rod(**damping):
    """A rod on a pivot, of unknown mass and inertia."""
    return bwm.structures.Pendulum(
        mass=LogNormal(0.0, 0.5),
        inertia=LogNormal(math.log(0.3), 0.5),
        length=0.5,
        gravity=10.0,
        upright=0.0,
        torque_limit=2.0,
        speed_limit=8.0,
        integrator=SemiImplicitEuler(),
        **damping,
    )


hmc = bwm.inference.HMC(chains=16, draws=400)
models = {
    "Gaussian process": bwm.GaussianProcess(),
    "ensemble": bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(64, 64)), members=10),
    "rod, HMC": bwm.BayesianDynamics(structure=rod(damping=Normal(0.0, 0.1)), inference=hmc),
}
for model in models.values():
    model.fit(train, seed=0, progress=False)

# %% [markdown]
# **Do** is a forecast: from the state at 0.5 s, motor off, with fresh noise. **Imagine** is `counterfactual`: the worlds
# take in what happened, the noise is solved for, the motor is switched off, and the noise runs again. Members of an
# ensemble are not reweighted: ten are too few to be told apart by one episode.


# %%
def asked(model):
    """Both answers."""
    g = torch.Generator().manual_seed(0)
    given = not isinstance(model, bwm.DeepEnsemble)
    imagined = counterfactual(model, factual, motor_off, condition=given, worlds=50, generator=g)
    fan = bwm.rollout(model, factual.state[:, OFF], off[:, OFF:], worlds=50, particles=10, generator=g)
    return imagined, fan


found = {name: asked(model) for name, model in models.items()}

# %% [markdown]
# One of the episodes: the motor drove the pendulum down and around. Had it been off, the forecast says, the pendulum may
# have gone either way; the counterfactual says that it would have come back, and the simulator, put back, does so. (The
# ensemble's comes back too late, with a band that does not know it.)

# %%
ROW, time = 3, 0.05 * torch.arange(STEPS + 1)
figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True, layout="constrained")
for ax, (name, (imagined, fan)) in zip(axes, found.items(), strict=True):
    low, high = (v[ROW, :, 0] for v in fan.interval(0.9))
    ax.fill_between(time[OFF + 1 :], low, high, color=DONE, alpha=0.2, linewidth=0, label="do: 90 % with fresh noise")
    low, high = (v[ROW, :, 0] for v in imagined.predictive.interval(0.9))
    ax.fill_between(time[1:], low, high, color=IMAGINED, alpha=0.8, label="imagine: 90 %, noise replayed")
    ax.plot(time, factual.state[ROW, :, 0], "k", linewidth=1, label="what happened")
    ax.plot(time, truth[ROW, :, 0], "--", color=TRUE, linewidth=1.2, label="the simulator, put back")
    ax.axvline(0.05 * OFF, color="0.7", linewidth=0.8)
    ax.text(0.05 * OFF + 0.03, 0.02, "motor off", color="0.5", fontsize=8, transform=ax.get_xaxis_transform())
    ax.set(title=name, xlabel="time [s]")
axes[0].set_ylabel("angle [rad], hanging at 3.14")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=4, frameon=False)
figure.savefig(out / "one.png", dpi=120)

# %% [markdown]
# **Over all episodes.** Error of the angle, root mean square, at times after the motor went off; as an answer to the
# question serve the counterfactual, the forecast, and what happened.

# %%
AFTER = [5, 10, 20, 40]
would = truth[:, OFF + 1 :, 0]


def rms(angle):
    """Error by step after the motor went off."""
    return (angle - would).square().mean(0).sqrt()[[h - 1 for h in AFTER]].tolist()


rows = {("what happened", ""): rms(factual.state[:, OFF + 1 :, 0])}
for name, (imagined, fan) in found.items():
    rows[name, "do"] = rms(fan.mean[..., 0])
    rows[name, "imagine"] = rms(imagined.mean[:, OFF:, 0])
table = pd.DataFrame(rows, index=[f"{0.05 * h:.2g} s" for h in AFTER]).T
table.round(3)

# %%
for name in models:
    assert (table.loc[(name, "imagine")] < 0.75 * table.loc[(name, "do")]).all(), name

# %% [markdown]
# What separates *do* from *imagine* here is only the noise of the episode, which the counterfactual knows. What is left
# is ignorance of the system: none in the simulator itself, little in the rod, more in what learned from scratch. What
# happened is the worst answer of all: the motor did matter.
#
# ## Who takes the blame
#
# The noise of the episode is what the model cannot explain. A model that is wrong cannot explain more, and replays its own
# error as if it had been chance. Here is a rod that is believed to be damped; mass and inertia are still fitted.

# %%
wrong = bwm.BayesianDynamics(structure=rod(damping=0.2), inference=hmc).fit(train, seed=0, progress=False)
found["rod, believed damped"] = asked(wrong)


def covered(predictive, truth):
    """Share of the 90 % intervals of the angle that hold the truth, by time."""
    return calibration_of(predictive, truth, levels=[0.9]).coverage.sel(level=0.9, variable="angle").values


later = 0.05 * torch.arange(OFF + 1, STEPS + 1)
figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
for (name, (imagined, _)), color in zip(found.items(), ("#6a3d9a", "#2c9c69", DONE, TRUE), strict=True):
    axes[0].plot(later, covered(imagined.predictive, truth[:, 1:])[OFF:], color=color, label=f"imagine: {name}")
fan = found["rod, believed damped"][1]
axes[0].plot(later, covered(fan, truth[:, OFF + 1 :]), ":", color=TRUE, label="do: rod, believed damped")
axes[0].axhline(0.9, color="0.6", linewidth=0.8)
axes[0].set(title="share of truths inside 90 % intervals, 10 episodes", xlabel="time [s]", ylim=(-0.03, 1.03))
axes[0].legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=2)


def abducted(model):
    """Noise of the velocity that the model infers, mean over worlds, and the velocity before it."""
    step = model.draw(50, generator=torch.Generator().manual_seed(0)).smooth(factual)[0].step
    return factual.state[:, :-1, 1].flatten(), step[:, 0, ..., 1].mean(0).flatten()


blame = {}
for name, model, color in (("rod, HMC", models["rod, HMC"], DONE), ("rod, believed damped", wrong, TRUE)):
    speed, eps = abducted(model)
    blame[name] = float(torch.corrcoef(torch.stack((speed, eps)))[0, 1])
    axes[1].scatter(speed, eps, s=5, color=color, alpha=0.35, linewidth=0)
    ends = torch.stack((speed.min(), speed.max()))
    trend = eps.mean() + blame[name] * eps.std() / speed.std() * (ends - speed.mean())
    axes[1].plot(ends, trend, color=color, linewidth=2, label=f"{name}: correlation {blame[name]:.2f}")
axes[1].set(title="noise that was inferred", xlabel="velocity [rad/s]", ylabel="of the velocity, in its own sd")
axes[1].legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15))
figure.savefig(out / "blame.png", dpi=120)

# %%
second = OFF + 20
shares = {name: float(covered(i.predictive, truth[:, 1:])[second - 1]) for name, (i, _) in found.items()}
print({name: round(share, 2) for name, share in shares.items()})
assert shares["rod, believed damped"] < 0.4
assert shares["rod, HMC"] > 0.7
imagined, fan = found["rod, believed damped"]
assert all(a < b for a, b in zip(rms(imagined.mean[:, OFF:, 0]), rms(fan.mean[..., 0]), strict=True))
assert shares["Gaussian process"] > 0.7
assert abs(blame["rod, HMC"]) < 0.15
assert blame["rod, believed damped"] > 0.4

# %% [markdown]
# The mean of its counterfactual is not bad, and closer to the truth than the mean of its forecast: along a path that stays
# near the recorded one, the error that passes for noise is the correction that the model needs. But it is no chance, and
# will not be the same elsewhere. And the band does not tell. After a second it holds the truth in one episode of ten, and
# is about as thin as that of the right rod: the intervals of a counterfactual say how much the worlds disagree, and these
# agree on the same error. In the forecast the error counts as noise, and noise makes intervals wide.
#
# So look at what was inferred before believing what was imagined: noise should know nothing of the state. Here it knows
# the velocity, and no simulator was needed to see that.
#
# The ensemble is too sure as well: ten networks that agree by habit are no posterior. (The lines are rough: ten episodes,
# and one fit whose error they all share. `benchmarks/counterfactuals.py` has several.)
#
# ## Answer
#
# * *See* needs the log alone, and says what goes with an action. It is no guide to acting where something hidden moves
#   both.
# * *Do* needs a system in which the action is set: a forecast, with all the noise that is to come.
# * *Imagine* needs the system, and the episode: its noise is known where the state was measured, and what remains uncertain
#   is the system. It is the sharpest of the three, and the one that only a model can give; where the model is wrong it is
#   sharp all the same.
