"""Silverbox (Wigren & Schoukens 2013): free runs of three models through the arrow test, and their intervals.

The models learn from the first 75 % of the multisine; the last quarter chooses one, which is named before the arrow.

1. Physics: a Duffing oscillator in continuous time, the input band-limited between samples, an offset of the input and
   a quadratic part of the spring; parameters by the likelihood of a filter over windows of 100 samples, `Laplace`.
2. A difference equation of second order with all quadratic and cubic products of two outputs, over windows of 20
   samples.
3. A Gaussian process on the physics of 1, learned from 600 smoothed steps.
"""

import json
import math
import time

import torch
from scipy.signal import resample_poly
from timing import machine, set_up
from torch.distributions import HalfNormal, LogNormal, Normal

import bayeswm as bwm
from bayeswm.inference import RBF, Laplace

MILLI = 1e-3

STEP = bwm.data.measured("silverbox", part="arrow").schema.time_step
physical = bwm.Schema(
    state=[bwm.Variable("output", unit="V"), bwm.Variable("rate", unit="V/s")],
    action=[bwm.Variable(name, unit="V") for name in ("input", "middle_input", "next_input")],
    observation=[bwm.Variable("output", unit="V")],
    time_step=STEP,
)
lagged = bwm.Schema(
    state=[bwm.Variable("output", unit="V"), bwm.Variable("previous", unit="V")],
    action=[bwm.Variable(name, unit="V") for name in ("next_input", "input", "previous_input")],
    time_step=STEP,
)


def recording(part):
    """Return output y and input u, both (T,)."""
    data = bwm.data.measured("silverbox", part=part)
    return data.state[0, :-1, 0].double(), data.action[0, :, 0].double()


def with_middle(u):
    """Return the input at the beginning, middle and end of each step, (T - 1, 3)."""
    twice = torch.from_numpy(resample_poly(u.numpy(), 2, 1))
    return torch.stack((u[:-1], twice[1:-1:2], u[1:]), -1)


def as_physical(part):
    y, u = recording(part)
    return bwm.Trajectories(physical, observation=y[None, 1:, None], action=with_middle(u)[None, 1:])


def as_lagged(part):
    y, u = recording(part)
    inputs = torch.stack((u[2:], u[1:-1], u[:-2]), -1)
    return bwm.Trajectories(lagged, state=torch.stack((y[1:], y[:-1]), -1)[None], action=inputs[None])


def duffing(state, action, _context, p):
    omega = 2 * math.pi * p["frequency"]

    def rates(y, v, u):
        spring = y * (1 + y * (p["quadratic"] + y * p["cubic"]))
        return v, omega * (omega * (p["gain"] * (u + p["offset"]) - spring) - 2 * p["damping_ratio"] * v)

    (y, v), (first, middle, last) = state.unbind(-1), action.unbind(-1)
    y1, v1 = rates(y, v, first)
    y2, v2 = rates(y + STEP / 2 * y1, v + STEP / 2 * v1, middle)
    y3, v3 = rates(y + STEP / 2 * y2, v + STEP / 2 * v2, middle)
    y4, v4 = rates(y + STEP * y3, v + STEP * v3, last)
    return torch.stack((y + STEP / 6 * (y1 + 2 * y2 + 2 * y3 + y4), v + STEP / 6 * (v1 + 2 * v2 + 2 * v3 + v4)), -1)


PRIOR = {
    "frequency": LogNormal(math.log(70.0), 0.3),
    "damping_ratio": LogNormal(math.log(0.05), 1.0),
    "quadratic": Normal(0.0, 1.0),
    "cubic": Normal(0.0, 10.0),
    "gain": LogNormal(0.0, 0.5),
    "offset": Normal(0.0, 0.02),
}


def physics(parameters):
    return bwm.structures.FromFunction(duffing, schema=physical, parameters=parameters, name="duffing")


def products(state, action):
    (y1, y2), inputs = state.unbind(-1), action.unbind(-1)
    ones = torch.ones_like(y1 + inputs[0])
    terms = (y1, y2, *inputs, 1, y1 * y1, y1 * y2, y2 * y2, y1**3, y1 * y1 * y2, y1 * y2 * y2, y2**3)
    return torch.stack([ones * term for term in terms], -1)


def difference(state, action, _context, p):
    value = (products(state, action) * p["weights"]).sum(-1)
    return torch.stack((value, state[..., 0].expand_as(value)), -1)


def discrete(weights):
    return bwm.structures.FromFunction(difference, schema=lagged, parameters={"weights": weights}, name="difference")


def centre(model):
    return {k: v.flatten(0, 1).mean(0) for k, v in model.posterior.items() if "noise" not in k}


def timed(name, fit):
    began = time.process_time()
    found = fit()
    print(f"  {name}: {time.process_time() - began:.0f} CPU s", flush=True)
    return found


def learn_physics(data):
    return bwm.BayesianDynamics(
        structure=physics(PRIOR),
        inference=Laplace(starts=4),
        window=100,
        noise={"output": 0.0, "rate": LogNormal(math.log(0.1), 1.0)},
        sensor_noise={"output": LogNormal(math.log(2e-4), 1.0)},
        belief={"rate": Normal(0.0, 30.0)},
    ).fit(data, seed=0, progress=False)


def learn_difference(data):
    return bwm.BayesianDynamics(
        structure=discrete(Normal(torch.zeros(13), 10.0)),
        inference=Laplace(starts=2),
        window=20,
        noise={"output": HalfNormal(MILLI), "previous": 1e-6},
    ).fit(data, seed=0, progress=False)


def learn_process(first, data):
    worlds = first.draw(1, generator=torch.Generator().manual_seed(0)).replace(**centre(first))
    smooth = worlds.smoothed(data.windows(1000))
    schema = bwm.Schema(state=physical.state, action=physical.action, time_step=STEP)
    states = bwm.Trajectories(schema, state=smooth.mean[0, 0].detach(), action=data.windows(1000).action)
    few = states.windows(1, stride=states.transition_count // 600)
    known = bwm.structures.FromFunction(duffing, schema=schema, parameters=centre(first), name="duffing")
    return bwm.GaussianProcess(mean=known, kernel=RBF()).fit(few, seed=0, progress=False)


def free_runs(model, part, length=None):
    """Return simulated and recorded outputs from the third sample of each run on, both (runs, samples)."""
    y, u = recording(part)
    length = len(y) if length is None else length
    y, between = y.unfold(0, length, length), with_middle(u).unfold(0, length - 1, length).mT
    # the rate at the second sample is the central difference; what is wrong with it dies within a tenth of a second
    second = ((y[:, 2] - y[:, 0]) / (2 * STEP)) if "rate" in model.schema.state.names else y[:, 0]
    start, actions = torch.stack((y[:, 1], second), -1), between[:, 1:]
    if "previous" in model.schema.state.names:
        u = torch.cat((between[..., 0], between[:, -1:, 2]), -1)
        actions = torch.stack((u[:, 2:], u[:, 1:-1], u[:, :-2]), -1)
    generator = torch.Generator().manual_seed(0)
    run = bwm.rollout(model, start, actions, worlds=8, particles=1, generator=generator)
    return run.mean[..., 1:, 0], y[:, 3:]


def rmse(simulated, recorded):
    return (simulated - recorded).square().mean().sqrt().item() / MILLI


def main() -> None:
    set_up()
    print(f"Silverbox; {machine()}")
    train = as_physical("multisine_train")
    first = timed("physics", lambda: learn_physics(train))
    second = timed("difference equation", lambda: learn_difference(as_lagged("multisine_train")))
    third = timed("process on physics", lambda: learn_process(first, train))
    print("  " + json.dumps({k: round(float(v), 5) for k, v in centre(first).items()}))
    still = {
        "physics": bwm.KnownDynamics(structure=physics(centre(first))),
        "difference equation": bwm.KnownDynamics(structure=discrete(centre(second)["weights"])),
        "process on physics": third,
    }
    chosen_by = {}
    for name, model in still.items():
        simulated, recorded = free_runs(model, "multisine_test", 2000)
        # a rate from three samples is 8 % wrong, which takes 100 samples to forget
        chosen_by[name] = rmse(simulated[:, 100:], recorded[:, 100:])
    print("  last quarter of the multisine, RMSE in mV:", {k: round(v, 3) for k, v in chosen_by.items()})
    print(f"  chosen: {min(chosen_by, key=chosen_by.__getitem__)}", flush=True)
    for name, model in still.items():
        began = time.process_time()
        simulated, recorded = (v[0] for v in free_runs(model, "arrow"))
        inside, whole = rmse(simulated[:31997], recorded[:31997]), rmse(simulated, recorded)
        print(
            f"  arrow, {name}: {whole:.3f} mV, inside the amplitudes of training {inside:.3f}; "
            f"{time.process_time() - began:.0f} CPU s",
            flush=True,
        )
    for name, model, data in (
        ("physics", first, as_physical("arrow")),
        ("difference equation", second, as_lagged("arrow")),
    ):
        past = {"history": 40} if name == "physics" else {}
        scores = bwm.diagnostics.calibration(
            model,
            data,
            horizon=1000,
            stride=1000,
            worlds=16,
            particles=8,
            **past,
        )
        held = scores["coverage"].sel(level=0.9, variable="output", horizon=[1, 10, 100, 1000])
        print(f"  90 % coverage, {name}, at 1, 10, 100, 1000 steps: {held.values.round(2).tolist()}", flush=True)


if __name__ == "__main__":
    main()
