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
# # Swing up a pendulum in four episodes
#
# **Question.** A rod hangs from a motor that is too weak to lift it directly. Nobody tells us its mass or its equation of
# motion. How much experience does it take to swing it up and keep it there?
#
# Four seconds of random torques, then three times: learn a Gaussian process of what was seen, draw twenty worlds that
# could all be the truth, and plan at every step over all of them.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import bayeswm as bwm

# %% [markdown]
# ## The system and the task
#
# The swing-up of PILCO (Deisenroth and Rasmussen, 2011): a rod of 1 kg and 1 m, 2.5 N m at most, ten decisions a second, a
# little noise in every step. The cost of a state is near 1 far from upright and 0 there: at most 40 steps of reward.

# %%
truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.swing_up(), noise=0.005)
tip = bwm.planning.tip_distance(truth.schema, ["angle"], lengths=[1.0], target=[0.0, 1.0], upright=torch.pi)
objective = bwm.planning.saturating(tip, 0.5)
system = bwm.planning.Simulated(truth, torch.zeros(2), objective=objective)
STEPS = 40

# %% [markdown]
# ## Four episodes
#
# `learn` is the loop: act at random once, then fit, plan, act, add the data.

# %%
model = bwm.GaussianProcess(features=128, restarts=1)
planner = bwm.planning.ICEM(
    objective, horizon=13, samples=100, iterations=3, elites=10, spread=1.0, worlds=10, particles=1
)
learned = bwm.planning.learn(system, model, planner, episodes=4, max_steps=STEPS, seed=1, progress=False)
rewards = STEPS + learned.returns
for i, r in enumerate(rewards.tolist()):
    print(f"episode {i} ({4 * (i + 1):2d} s of experience): reward {r:5.1f} of 24.7 possible")

# %%
paths = learned.trajectories.states()
fig, axis = plt.subplots(figsize=(7, 3.2))
for i, path in enumerate(paths):
    label = "random" if i == 0 else f"episode {i}"
    axis.plot(0.1 * np.arange(STEPS + 1), torch.cos(path[:, 0] - torch.pi), color=plt.cm.viridis(i / 4), label=label)
axis.set(xlabel="seconds", ylabel="height of the tip (m)")
axis.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.1), fontsize=8)
fig.tight_layout()

# %% [markdown]
# ## What it believed, and what happened
#
# The first learned model has seen four seconds of hanging about, and it knows that it does not know the way up. The last
# one is sure. Each picture shows the plan made at the start of an episode, with the 90 % interval of the imagined
# trajectories, and what happened when it was carried out without another look.

# %%
generator = torch.Generator().manual_seed(0)
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), sharey=True)
for axis, seen in zip(axes, (1, 4), strict=True):
    believed = bwm.GaussianProcess(features=128, restarts=1).fit(learned.trajectories[:seen], progress=False)
    start = torch.zeros(2, dtype=torch.float64)
    wide = bwm.planning.ICEM(
        objective, horizon=20, samples=400, iterations=5, elites=20, spread=1.0, worlds=20, particles=1
    )
    plan = wide.plan(believed, start, generator=generator)
    low, high = plan.predictive.interval(0.9)
    actual = bwm.rollout(truth, start, plan.actions, particles=1, generator=generator).mean
    seconds = 0.1 * np.arange(1, 21)
    axis.fill_between(seconds, low[:, 0], high[:, 0], color="C0", alpha=0.25, label="90 % of what is imagined")
    axis.plot(seconds, plan.predictive.mean[:, 0], color="C0", label="its mean")
    axis.plot(seconds, actual[:, 0], "k.", label="what happened")
    axis.axhline(torch.pi, color="0.7", lw=0.8)
    axis.axhline(-torch.pi, color="0.7", lw=0.8)
    axis.set(xlabel="seconds", title=f"after {seen} episode{'s' if seen > 1 else ''}")
axes[0].set_ylabel("angle from hanging (rad)")
axes[1].legend(frameon=False, fontsize=8)
fig.tight_layout()

# %% [markdown]
# ## Film strip of the last episode

# %%
shown = list(range(0, STEPS + 1, 2))
fig, axis = plt.subplots(figsize=(10, 1.5))
for k, t in enumerate(shown):
    angle = float(paths[-1, t, 0])
    x, y = 1.15 * k + np.sin(angle), -np.cos(angle)
    axis.plot([1.15 * k, x], [0, y], color=plt.cm.viridis(t / STEPS), lw=2.5, solid_capstyle="round")
    axis.plot(1.15 * k, 0, "k.", ms=4)
    axis.text(1.15 * k, -1.55, f"{0.1 * t:.1f}", ha="center", fontsize=7, color="0.4")
axis.set(aspect="equal", ylim=(-1.7, 1.15), xlim=(-1.2, 1.15 * len(shown)))
axis.axis("off")
fig.tight_layout()
out = Path("build/notebooks")
out.mkdir(parents=True, exist_ok=True)
fig.savefig(out / "swing_up.png", dpi=150)

# %% [markdown]
# **Answer.** Sixteen seconds of experience, four of them random.

# %%
assert float(rewards[1:].max()) > 22.0
