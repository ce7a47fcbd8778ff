"""A linear oscillator of which only the position is measured, and its recordings."""

import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.inference.filtering import Filter
from bayeswm.structures import Linear
from tests.inference.dense import Dense, solve

A = torch.tensor([[1.0, 0.2], [-0.3, 0.9]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
NOISE, SENSOR = (0.1, 0.3), 0.2
BELIEF = {"x": Normal(0.2, 0.7), "v": Normal(-0.1, 0.9)}
STEPS = 6


def oscillator() -> Linear:
    schema = bwm.Schema(
        state=[bwm.Variable("x", unit="m"), bwm.Variable("v", unit="m/s")],
        action=[bwm.Variable("force", unit="N")],
        time_step=0.2,
    )
    return Linear(schema, A=A, B=B)


def model(
    *, noise: tuple[float, float] = NOISE, belief: dict[str, Normal] | None = None, filtering: Filter | None = None
) -> bwm.KnownDynamics:
    return bwm.KnownDynamics(
        structure=oscillator(),
        noise=noise,
        sensor_noise={"x": SENSOR},
        belief=BELIEF if belief is None else belief,
        filtering=filtering,
    )


def record(*, episodes: int = 2, steps: int = STEPS, seed: int = 0, missing: bool = False) -> bwm.Trajectories:
    """Episodes as the model believes them to be; the velocity was not recorded."""
    g = torch.Generator().manual_seed(seed)
    start = torch.stack([law.loc + law.scale * torch.randn(episodes, generator=g) for law in BELIEF.values()], -1)
    action = torch.randn(episodes, steps, 1, generator=g, dtype=torch.float64)
    truth = bwm.KnownDynamics(structure=oscillator(), noise=NOISE)
    path = bwm.rollout(truth, start, action, particles=1, generator=g).particles[0, 0]
    state = torch.cat((start[:, None].double(), path), 1)
    state[..., 0] += SENSOR * torch.randn(episodes, steps + 1, generator=g, dtype=torch.float64)
    state[..., 1] = float("nan")
    if missing:
        state[:, 2, 0] = float("nan")
    return bwm.Trajectories(truth.schema, state=state, action=action, allow_missing=True)


def exact(data: bwm.Trajectories, i: int, *, noise: tuple[float, float] = NOISE) -> Dense:
    """Condition on one episode by dense algebra."""
    steps = int(data.lengths[i])
    mean, scale = (torch.tensor([getattr(v, k) for v in BELIEF.values()]).double() for k in ("loc", "scale"))
    return solve(
        A,
        data.action[i, :steps] @ B.mT,
        start=(mean, scale.square().diag()),
        noise=torch.tensor(noise, dtype=torch.float64),
        columns=(0,),
        sensor=torch.tensor([SENSOR], dtype=torch.float64),
        measured=data.states()[i, : steps + 1, :1],
    )
