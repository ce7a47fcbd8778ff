"""Pyro without traces: one thread at a time, a parameter store and random numbers of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bayeswm.base.random import global_rng


@contextmanager
def own_pyro(seed: int, *, validate: bool = False) -> Iterator[None]:
    """Give a block Pyro for itself: its handlers and its parameter store are global, and not safe between threads.

    Every use of Pyro in the library stands in such a block. The caller's parameter store, random state and validation
    are as before afterwards; another thread waits.

    Parameters
    ----------
    seed : int
        Decides what Pyro draws.
    validate : bool
        Let Pyro check arguments and shapes: for the first run of a user's program.

    Examples
    --------
    >>> import pyro, torch
    >>> with own_pyro(0):
    ...     _ = pyro.param("weight", torch.zeros(2))
    >>> "weight" in pyro.get_param_store()
    False
    """
    # the lock of torch's global random state is the lock of Pyro too: two locks could be taken in two orders
    with global_rng(seed):
        import pyro

        with pyro.get_param_store().scope(), pyro.validation_enabled(validate):
            yield
