"""What belongs to the caller and is shared by the whole process: random states, number format, threads, gradients."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# NumPy's global state is read and restored here because it is what must not change


def surroundings() -> Mapping[str, Any]:
    """Return what can be compared, by name.

    Examples
    --------
    >>> before = surroundings()
    >>> torch.set_default_dtype(torch.float64)
    >>> [name for name, value in surroundings().items() if value != before[name]]
    ['the default dtype']
    >>> torch.set_default_dtype(torch.float32)
    """
    return {
        "torch's global random state": torch.get_rng_state().numpy().tobytes(),
        "NumPy's global random state": repr(np.random.get_state(legacy=False)),  # noqa: NPY002
        "Python's global random state": random.getstate(),
        "the default dtype": torch.get_default_dtype(),
        "the number of threads": torch.get_num_threads(),
        "the gradient mode": torch.is_grad_enabled(),
        "the use of deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def reseed(seed: int) -> None:
    """Put the global random state of torch, NumPy and Python elsewhere."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def kept_surroundings() -> Iterator[None]:
    """Put everything back afterwards as it was.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with kept_surroundings():
    ...     reseed(3)
    >>> bool((torch.get_rng_state() == before).all())
    True
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    dtype, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)
