import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.causal import Mechanism, StructuralModel
from bayeswm.causal.counterfactuals.believed_noise import BelievedNoise
from bayeswm.causal.counterfactuals.drawn_noise import DrawnNoise
from bayeswm.causal.counterfactuals.partly_seen import PartlySeen
from bayeswm.causal.counterfactuals.unsettled import hidden_noise, missing_noise
from tests.causal.reference_models import c1, c3, line

NAN = float("nan")


def test_missing_values(generator: torch.Generator) -> None:
    data = bwm.Trajectories(c1().schema, state=[[[0.0] * 3, [1.0, 1.0, NAN]]], allow_missing=True)
    source, log_density, size = missing_noise(PartlySeen(c1().draw(1), data), data, particles=3, generator=None)
    assert isinstance(source, BelievedNoise)
    assert size == math.inf
    assert log_density.shape == (1,)
    bent = StructuralModel({"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X: X * X, noise=1.0)})
    data = bwm.Trajectories(bent.schema, state=[[[0.0, 0.0], [NAN, 1.0]]], allow_missing=True)
    seen = PartlySeen(bent.draw(1), data)
    source, _, size = missing_noise(seen, data, particles=3, generator=generator)
    assert isinstance(source, DrawnNoise)
    assert 25 <= size < math.inf
    with pytest.raises(bwm.SpecError, match="generator="):
        missing_noise(seen, data, particles=3, generator=None)


def test_hidden_states(generator: torch.Generator) -> None:
    data = bwm.Trajectories(line(), state=[[[1.0], [1.0], [0.5]]], action=[[[0.0]] * 2])
    linear = bwm.KnownDynamics(structure=c3().structure, noise=1.0, sensor_noise=0.5).draw(1)
    source, density = hidden_noise(linear, data, weigh=False, particles=3, generator=None)
    assert isinstance(source, BelievedNoise)
    assert density is None
    _, density = hidden_noise(linear, data, weigh=True, particles=3, generator=generator)
    assert density is not None
    torch.testing.assert_close(density, linear.smooth(data, generator=generator)[1].flatten())
    structure = bwm.structures.FromFunction(lambda s, a: s - 0.1 * s**3 + a, schema=line())
    bent = bwm.KnownDynamics(structure=structure, noise=1.0, sensor_noise=0.5).draw(1)
    source, _ = hidden_noise(bent, data, weigh=False, particles=3, generator=generator)
    assert isinstance(source, DrawnNoise)
    solved, density = hidden_noise(c3().draw(1), data, weigh=True, particles=3, generator=None)
    assert isinstance(solved, DrawnNoise)
    torch.testing.assert_close(density, c3().draw(1).smooth(data)[1].flatten())
