"""Counterfactuals against simulators that are put back and run again with the same noise."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base.structure import Structure
from bayeswm.causal import counterfactual
from bayeswm.diagnostics import calibration_of
from bayeswm.inference import Conjugate, Laplace
from bayeswm.structures import CartPole, Linear, Pendulum
from bayeswm.structures.integrators import SemiImplicitEuler
from tests.statistical.checks import BUDGET, chi_square_p

gymnasium = pytest.importorskip("gymnasium", reason="needs gymnasium")
pytestmark = [
    pytest.mark.statistical,
    # our noise comes after the simulator has cut the speed
    pytest.mark.filterwarnings("ignore:.*outside its bounds:bayeswm.DataWarning"),
]
STEPS = 40


class Simulator:
    """A Gymnasium environment that is put where we say, with noise of our own after each step."""

    def __init__(self, env: str, structure: Structure, sd: list[float]) -> None:
        self.env: Any = gymnasium.make(env).unwrapped
        self.env.reset(seed=0)
        self.structure, self.sd = structure, torch.tensor(sd, dtype=torch.float64)
        self.pushes = env == "CartPole-v1"

    def run(self, start: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """States (H + 1, S)."""
        states = [start]
        for action, eps in zip(actions, noise, strict=True):
            self.env.state = states[-1].numpy()
            if self.pushes:
                self.env.steps_beyond_terminated = None
            self.env.step(int(action > 0) if self.pushes else action.numpy())
            states.append(torch.as_tensor(self.env.state) + self.sd * eps)
        return torch.stack(states)

    def episodes(self, count: int, *, seed: int) -> tuple[bwm.Trajectories, Tensor, Tensor]:
        """Recorded episodes, other actions (count, H, 1), and what they would have led to (count, H, S)."""
        g, size = torch.Generator().manual_seed(seed), len(self.sd)
        start = torch.randn(count, size, generator=g, dtype=torch.float64) * (0.2 if self.pushes else 1.5)
        noise = torch.randn(count, STEPS, size, generator=g, dtype=torch.float64)
        plans = 4 * torch.rand(2, count, STEPS // 5, 1, generator=g, dtype=torch.float64).repeat_interleave(5, 2) - 2
        first, other = 10 * plans.sign() if self.pushes else plans
        happened, would = (
            torch.stack([self.run(*row) for row in zip(start, actions, noise, strict=True)])
            for actions in (first, other)
        )
        schema = self.structure.schema
        assert schema is not None
        return bwm.Trajectories(schema, state=happened, action=first), other, would[:, 1:]


def pendulum() -> Simulator:
    return Simulator("Pendulum-v1", Pendulum.gymnasium(), [0.01, 0.1])


def body(**damping: Any) -> Pendulum:
    return Pendulum(
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


@pytest.mark.parametrize(
    ("simulator", "name"),
    [
        (pendulum(), "torque"),
        (Simulator("CartPole-v1", CartPole.gymnasium(), [0.002, 0.05, 0.002, 0.05]), "force"),
    ],
    ids=["pendulum", "cart-pole"],
)
def test_the_true_system_gives_the_rewound_trajectory(simulator: Simulator, name: str) -> None:
    factual, other, would = simulator.episodes(5, seed=0)
    noise = dict(zip(factual.schema.state.columns, simulator.sd.tolist(), strict=True))
    truth = bwm.KnownDynamics(structure=simulator.structure, noise=noise)
    found = counterfactual(truth, factual, bwm.do({name: other[..., 0]}))
    torch.testing.assert_close(found.mean, would, rtol=0, atol=1e-9)
    assert float(found.variance.max()) == 0
    assert float((factual.states()[:, 1:] - would).abs().max()) > 1


def rmse(forecast: bwm.Predictive, would: Tensor) -> Tensor:
    """Error of the angle by step, (H,)."""
    return (forecast.mean - would)[..., 0].square().mean(0).sqrt()


@pytest.mark.parametrize(
    ("model", "share"),
    [
        (bwm.GaussianProcess(restarts=1, features=128), 0.6),
        (bwm.BayesianDynamics(structure=body(damping=Normal(0.0, 0.1)), inference=Laplace(starts=2)), 0.4),
    ],
    ids=["process", "physics"],
)
def test_replayed_noise_is_worth_more_than_fresh_noise(model: bwm.DynamicsModel, share: float) -> None:
    simulator = pendulum()
    model.fit(simulator.episodes(8, seed=1)[0], seed=0, progress=False)
    factual, other, would = simulator.episodes(20, seed=2)
    g = torch.Generator().manual_seed(0)
    found = counterfactual(model, factual, bwm.do({"torque": other[..., 0]}), condition=False, generator=g)
    fresh = bwm.rollout(model, factual.states()[:, 0], other, generator=g)
    error = rmse(found.predictive, would)
    for h in (4, 9, 19):
        assert float(error[h]) < share * float(rmse(fresh, would)[h])
        assert float(error[h]) < share * float((factual.states()[:, 1:] - would)[:, h, 0].square().mean().sqrt())


def test_noise_takes_the_blame_for_wrong_physics_and_the_intervals_do_not_show_it() -> None:
    simulator = pendulum()
    wrong = bwm.BayesianDynamics(structure=body(damping=0.2), inference=Laplace(starts=2))
    wrong.fit(simulator.episodes(8, seed=1)[0], seed=0, progress=False)
    factual, other, would = simulator.episodes(20, seed=2)
    g = torch.Generator().manual_seed(0)
    found = counterfactual(wrong, factual, bwm.do({"torque": other[..., 0]}), condition=False, generator=g)
    at = calibration_of(found.predictive, would, levels=[0.9]).sel(level=0.9, variable="angle")
    assert float(at.coverage[4:].max()) < 0.5
    # no simulator is needed to see it: noise that knows the velocity
    noise = wrong.draw(64, generator=g).smooth(factual)[0].step
    assert noise is not None
    pairs = torch.stack((noise[:, 0, ..., 1].mean(0).flatten(), factual.states()[:, :-1, 1].flatten()))
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.3


def test_counterfactuals_of_the_right_family_are_calibrated() -> None:
    """Systems drawn from the prior: the rank of what would have happened among 19 draws is uniform on 0..19."""
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=0.1)
    g, many, steps = torch.Generator().manual_seed(0), 120, 20
    laws = {"A": Normal(0.8, 0.1), "B": Normal(0.5, 0.5)}
    ranks: list[int] = []
    for _ in range(many):
        a, b = (law.loc + law.scale * torch.randn((), generator=g).double() for law in laws.values())
        noise, u = torch.randn(2, steps, generator=g).double() * 0.3, torch.randn(3, steps, 1, generator=g).double()
        paths = torch.zeros(3, steps + 1).double()
        for t in range(steps):
            # an episode to learn from, what happened, and what would have
            paths[:, t + 1] = a * paths[:, t] + b * u[:, t, 0] + noise[[0, 1, 1], t]
        train, factual = (bwm.Trajectories(schema, state=paths[i][None, :, None], action=u[i][None]) for i in (0, 1))
        model = bwm.BayesianDynamics(structure=Linear(schema, **laws), noise=0.3, inference=Conjugate(draws=19))
        model.fit(train, seed=int(torch.randint(10**6, (), generator=g)), progress=False)
        found = counterfactual(model, factual, bwm.do({"u": u[2, :, 0]}), worlds=19, generator=g)
        ranks.append(int((found.predictive.particles[:, 0, 0, -1, 0] < paths[2, -1]).sum()))
    counts = torch.bincount(torch.tensor(ranks) // 4, minlength=5).double()
    expected = many / 5
    assert chi_square_p(((counts - expected).square() / expected).sum(), 4) > BUDGET
