import pytest
import torch

import bayeswm as bwm
from bayeswm.base import AleatoricParts, aleatoric_parts
from bayeswm.structures import FromFunction
from tests.statistical.checks import BUDGET, mean_p
from tests.statistical.linear import SCHEMA, START, A, B, LinearWorlds

H = 5
ACTIONS = torch.zeros(H, 1, dtype=torch.float64)


def test_names_are_exported() -> None:
    assert bwm.aleatoric_parts is aleatoric_parts
    assert AleatoricParts._fields == ("initial", "episode", "step")


@pytest.mark.statistical
def test_parts_of_a_linear_system_are_exact() -> None:
    factor = torch.tensor([[0.4, 0.0], [0.2, 0.3]], dtype=torch.float64)
    matrices = torch.stack((A, 0.8 * A))
    worlds = LinearWorlds(
        {"A": matrices, "factor": 0.2 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2)},
        log_weight=torch.tensor([0.7, 0.3], dtype=torch.float64).log(),
        exhaustive=True,
    )
    rows = 500  # independent noise in each row of the batch
    belief = bwm.MultivariateGaussian(START.expand(1, 1, rows, 2), factor)
    g = torch.Generator().manual_seed(0)
    parts = aleatoric_parts(worlds, belief, ACTIONS.expand(rows, H, 1), particles=10, generator=g)
    initial, step = torch.zeros(H, 2, dtype=torch.float64), torch.zeros(H, 2, dtype=torch.float64)
    for weight, matrix in zip((0.7, 0.3), matrices, strict=True):
        start, noise = factor @ factor.mT, torch.zeros(2, 2, dtype=torch.float64)
        for h in range(H):
            start = matrix @ start @ matrix.mT
            noise = matrix @ noise @ matrix.mT + 0.04 * torch.eye(2, dtype=torch.float64)
            initial[h] += weight * start.diagonal()
            step[h] += weight * noise.diagonal()
    assert mean_p(parts.initial, initial) > BUDGET
    assert mean_p(parts.step, step) > BUDGET
    assert bool((parts.episode == 0).all())


class Windy(LinearWorlds):
    """The same system in a wind that is drawn once an episode; the carry remembers it."""

    episode_noise_size = 1

    def start(self, belief, context=None, noise=None):
        x = super().start(belief, context, noise)
        wind = torch.zeros(1, dtype=torch.float64) if noise is None or noise.episode is None else noise.episode
        return x, 0.5 * wind

    def transition(self, carry, action, context=None, *, step=0):
        law = super().transition(carry[0], action, context, step=step)
        inner = bwm.MultivariateGaussian(law.mean + carry[1], law.scale_tril)
        return WindyLaw(inner, carry[1])

    def state(self, carry):
        return carry[0]


class WindyLaw(bwm.Law):
    noise_size = 2

    def __init__(self, law, wind):
        self.law, self.wind = law, wind

    @property
    def mean(self):
        return self.law.mean

    @property
    def variance(self):
        return self.law.variance

    def push(self, noise):
        return self.law.push(noise), self.wind

    def abduct(self, next_state, *, tolerance=None):
        return self.law.abduct(next_state, tolerance=tolerance)

    def log_prob(self, state, *, marginal=False, tolerance=None):
        return self.law.log_prob(state, marginal=marginal, tolerance=tolerance)

    def cdf(self, state):
        return self.law.cdf(state)

    def map(self, change):
        return WindyLaw(self.law.map(change), change(self.wind))


@pytest.mark.statistical
def test_what_is_drawn_once_an_episode_has_its_own_part() -> None:
    worlds = Windy(
        {"A": A[None], "factor": 0.2 * torch.eye(2, dtype=torch.float64)[None]},
        exhaustive=True,
    )
    rows = START.expand(500, 2)
    g = torch.Generator().manual_seed(1)
    parts = aleatoric_parts(worlds, rows, ACTIONS.expand(500, H, 1), particles=10, generator=g)
    path, episode = torch.zeros(2, dtype=torch.float64), []
    for _ in range(H):
        path = A @ path + 0.5
        episode.append(path.square())
    assert mean_p(parts.episode, torch.stack(episode)) > BUDGET
    assert bool((parts.initial == 0).all())


def test_parts_add_up_and_repeat() -> None:
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x @ A.mT + B * u, schema=SCHEMA), noise=0.1)
    belief = bwm.Gaussian(START.view(1, 1, 2), torch.full((2,), 0.3, dtype=torch.float64))
    one, two = (aleatoric_parts(model, belief, ACTIONS, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)
    assert one.initial.shape == (H, 2)


def test_one_particle_tells_nothing() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum())
    with pytest.raises(bwm.SpecError, match="particles >= 2"):
        aleatoric_parts(
            model, torch.zeros(2), torch.zeros(3, 1), particles=1, generator=torch.Generator().manual_seed(0)
        )
