"""What the tests of diagnostics share."""

import pytest

from tests.diagnostics.recordings import Linear, linear_system, record


@pytest.fixture(scope="session")
def linear() -> Linear:
    truth = linear_system()
    return Linear(truth, record(truth, episodes=400, steps=6, seed=11))
