"""What constraints are shown: how many independent draws there are."""

import pytest
import torch

from tests.planning.walls import imagined


def test_worlds_are_the_units_where_they_are_drawn_and_particles_where_they_are_the_posterior() -> None:
    paths = torch.zeros(4, 5, 2, 3, 1)
    assert imagined(paths).units == pytest.approx(20)
    drawn = imagined(paths, exhaustive=False)
    assert drawn.clustered
    assert drawn.units == pytest.approx(4)
    assert imagined(paths[:1], exhaustive=False).units == pytest.approx(5)


def test_a_world_without_weight_is_no_unit() -> None:
    log_weight = torch.tensor([0.0, 0.0, -float("inf")])
    assert imagined(torch.zeros(3, 1, 1, 1), log_weight=log_weight, exhaustive=False).units == pytest.approx(2)


def test_the_start_is_not_reached() -> None:
    assert imagined(torch.ones(1, 1, 4, 3, 2)).reached.shape == (1, 1, 4, 3, 2)
    assert bool((imagined(torch.ones(1, 1, 4, 3, 2)).reached == 1).all())
