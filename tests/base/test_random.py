"""Randomness comes from explicit generators and leaves the global state alone."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.base.random import (
    global_rng,
    make_generator,
    permutation,
    poisson,
    spawn_seeds,
    standard_normal,
    systematic,
    uniform,
)

DRAWS = {
    "standard_normal": lambda g: standard_normal((5,), g),
    "uniform": lambda g: uniform((5,), g),
    "poisson": lambda g: poisson(torch.full((50,), 3.0), g),
    "permutation": lambda g: permutation(50, g),
    "systematic": lambda g: systematic(torch.zeros(7), 50, g),
    "spawn_seeds": lambda g: torch.tensor(spawn_seeds(g, 5)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_same_generator_same_draw_and_the_global_state_stays(name):
    before = torch.get_rng_state()
    first, second, other = (DRAWS[name](make_generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [None, True, 1.0, "1"])
def test_randomness_is_never_implicit(seed):
    with pytest.raises(SpecError, match="manual_seed"):
        make_generator(seed)


def test_generator_is_passed_through():
    generator = torch.Generator()
    assert make_generator(generator) is generator


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_whatever_the_default(dtype):
    assert standard_normal((2,), make_generator(0), dtype=dtype, device="cpu").dtype == dtype
    assert uniform((2,), make_generator(0), dtype=dtype, device="cpu").dtype == dtype


def test_permutation_is_one():
    assert permutation(9, make_generator(0), device="cpu").sort().values.tolist() == list(range(9))


def test_systematic_counts_are_the_weights_rounded():
    weight = torch.tensor([0.13, 0.5, 0.0, 0.37], dtype=torch.float64)
    for seed in range(20):
        counts = torch.bincount(systematic(weight.log(), 10, make_generator(seed)), minlength=4)
        assert bool(((counts - 10 * weight).abs() < 1).all())
        assert int(counts[2]) == 0


@pytest.mark.statistical
def test_systematic_is_unbiased():
    weight, runs = torch.tensor([0.15, 0.85], dtype=torch.float64), 4000
    generator = make_generator(0)
    first = sum(int((systematic(weight.log(), 3, generator) == 0).sum()) for _ in range(runs))
    # 3 draws hold index 0 either 0 or 1 times, with probability 0.45: a binomial law
    deviation = (first - 0.45 * runs) / math.sqrt(runs * 0.45 * 0.55)
    assert math.erfc(abs(deviation) / math.sqrt(2)) > 1e-5


def test_global_rng_is_seeded_inside_and_restored_after_an_error():
    before = torch.get_rng_state()
    with global_rng(1):
        first = torch.rand(3)
    with pytest.raises(ZeroDivisionError), global_rng(1):
        _ = float(torch.rand(3).equal(first)) / 0
    with global_rng(1):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_drawing_laws_in_threads_gives_what_one_thread_gives_and_leaves_the_global_state():
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=torch.distributions.Gamma(3.0, 3.0)))

    def draw(_=None):
        return model.draw(500, generator=torch.Generator().manual_seed(1)).parameters["mass"]

    before, expected = torch.get_rng_state(), draw()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(draw, range(100)))
    assert all(torch.equal(f, expected) for f in found)
    assert torch.equal(before, torch.get_rng_state())
