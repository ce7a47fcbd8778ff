"""The one place where random numbers come from: explicit generators, never the global state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError

_GLOBAL = threading.RLock()


def make_generator(seed: int | torch.Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator: a new one for a seed, the given one unchanged.

    Parameters
    ----------
    seed : int or torch.Generator
        A seed, or a generator that is passed through.
    device : torch.device or str
        Where a new generator lives.

    Raises
    ------
    SpecError
        For anything else, None included: randomness is never implicit here.

    Examples
    --------
    >>> a, b = make_generator(1), make_generator(1)
    >>> bool((standard_normal((2,), a) == standard_normal((2,), b)).all())
    True
    """
    if isinstance(seed, torch.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise SpecError(
            f"expected generator=torch.Generator or an integer seed, got {type(seed).__name__}; "
            "make one with torch.Generator().manual_seed(0)"
        )
    return torch.Generator(device=device).manual_seed(seed)


def standard_normal(
    shape: tuple[int, ...],
    generator: torch.Generator,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw from N(0, 1) with the generator, on the generator's device, then move.

    Examples
    --------
    >>> standard_normal((3, 2), make_generator(0), dtype=torch.float64).shape
    torch.Size([3, 2])
    """
    drawn = torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
    return drawn if device is None else drawn.to(device)


def uniform(
    shape: tuple[int, ...],
    generator: torch.Generator,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw from the uniform law on [0, 1).

    Examples
    --------
    >>> bool((uniform((100,), make_generator(0)) < 1).all())
    True
    """
    drawn = torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)
    return drawn if device is None else drawn.to(device)


def poisson(rate: Tensor, generator: torch.Generator) -> Tensor:
    """Draw Poisson numbers, in the rate's dtype and on its device.

    Examples
    --------
    >>> poisson(torch.tensor([0.0, 1e6]), make_generator(0)).round(decimals=-5).tolist()
    [0.0, 1000000.0]
    """
    return torch.poisson(rate.to(generator.device), generator=generator).to(rate.device)


def permutation(n: int, generator: torch.Generator, *, device: torch.device | str | None = None) -> Tensor:
    """Draw a random order of 0..n-1.

    Examples
    --------
    >>> permutation(3, make_generator(0)).sort().values.tolist()
    [0, 1, 2]
    """
    drawn = torch.randperm(n, generator=generator, device=generator.device)
    return drawn if device is None else drawn.to(device)


def systematic(log_weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n indices in proportion to the weights, in random order, with the least variance.

    Systematic resampling: index i comes up ``n * w_i`` times, rounded up or down.

    Parameters
    ----------
    log_weight : Tensor, shape (worlds,)
        Logarithms of the weights; they need not be normalised.
    n : int
        How many indices.
    generator : torch.Generator
        Source of the offset and the order.

    Returns
    -------
    Tensor, shape (n,), int64

    Examples
    --------
    >>> systematic(torch.tensor([0.75, 0.25]).log(), 4, make_generator(0)).sort().values.tolist()
    [0, 0, 0, 1]
    """
    weight = torch.softmax(log_weight.detach().double(), 0)
    points = (torch.arange(n, dtype=torch.float64) + uniform((), generator, dtype=torch.float64).cpu()) / n
    edges = weight.cpu().cumsum(0)
    index = torch.searchsorted(edges, points).clamp(max=len(weight) - 1)
    return index[permutation(n, generator, device="cpu")].to(log_weight.device)


def spawn_seeds(generator: torch.Generator, n: int) -> list[int]:
    """Draw n independent seeds, for parts that need streams of their own.

    Examples
    --------
    >>> len(set(spawn_seeds(make_generator(0), 4)))
    4
    """
    return torch.randint(2**62, (n,), generator=generator, device=generator.device).tolist()


@contextmanager
def global_rng(seed: int) -> Iterator[None]:
    """Seed torch's global state for a library that samples from it, and restore it afterwards.

    Threads that do so wait for each other.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with global_rng(3):
    ...     _ = torch.rand(2)
    >>> bool((torch.get_rng_state() == before).all())
    True
    """
    with _GLOBAL, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
