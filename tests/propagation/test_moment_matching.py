"""Moment matching against the moments of a quadratic map, and closed forms of a family."""

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import (
    Moments,
    Schema,
    StructureWorlds,
    Variable,
)
from bayeswm.base.random import spawn_seeds
from bayeswm.propagation import MomentMatching, Unscented
from bayeswm.structures import FromFunction, Pendulum
from tests.propagation import linear_systems as lin
from tests.propagation.linear_systems import generator

F64 = torch.float64
LINE = Schema(state=[Variable("x")], action=[Variable("u")], time_step=1.0)


def test_a_closed_form_of_the_family_is_used_where_it_is_pooled() -> None:
    class Closed(bwm.KnownDynamics):
        """x' = x + u with a function variance of 0.25 and a noise of 1, both known in closed form."""

        asked = 0

        def moments(self, mean, covariance, action=None, *, context=None, worlds=64, generator=None):
            self.asked += 1
            noise = torch.eye(1, dtype=F64)
            return Moments(mean + action, covariance + noise + 0.25, covariance, covariance + noise)

    model = Closed(structure=FromFunction(lambda x, u: x + u, schema=LINE), noise=1.0)
    found = bwm.propagate(model, torch.zeros(3, 1), torch.ones(3, 4, 1), method=MomentMatching(pooled=True))
    assert model.asked == 4 + 3
    torch.testing.assert_close(found.mean[0, :, 0], torch.arange(1.0, 5.0, dtype=F64))
    torch.testing.assert_close(found.variance[0, :, 0], 1.25 * torch.arange(1.0, 5.0, dtype=F64))
    torch.testing.assert_close(found.aleatoric_variance[0, :, 0], torch.arange(1.0, 5.0, dtype=F64))
    model.asked = 0
    bwm.propagate(model, torch.zeros(3, 1), torch.ones(3, 4, 1), method=MomentMatching())
    bwm.propagate(model, torch.zeros(3, 1), torch.ones(3, 4, 1), method=Unscented(pooled=True))
    assert model.asked == 0


def test_a_quadratic_map_of_two_columns_is_exact_in_each_world() -> None:
    """x' = a x y, y' = y + a x^2: moments of products of jointly Gaussian numbers, by Isserlis' theorem."""
    plane = Schema(state=[Variable("x"), Variable("y")], time_step=1.0)

    def move(x: Tensor, u: Tensor, c: Tensor, p: dict[str, Tensor]) -> Tensor:
        return torch.stack((p["a"] * x[..., 0] * x[..., 1], x[..., 1] + p["a"] * x[..., 0].square()), -1)

    a = torch.tensor([0.5, -2.0], dtype=F64)
    noise = torch.tensor([[0.1, 0.2], [0.3, 0.0]], dtype=F64)
    structure = FromFunction(move, schema=plane, parameters={"a": 0.0})
    worlds = StructureWorlds(structure, plane, {"a": a, "process_noise": noise}, exhaustive=True)
    belief = lin.start(batch=1)
    law = bwm.propagate(worlds, belief, horizon=1).laws[0]
    (m,), (C,) = lin.as_belief(belief)
    mx, my, xx, xy, yy = m[0], m[1], C[0, 0], C[0, 1], C[1, 1]
    product = mx**2 * yy + my**2 * xx + 2 * mx * my * xy + xx * yy + xy**2  # Var(x y)
    square = 4 * mx**2 * xx + 2 * xx**2  # Var(x^2)
    with_y, with_square = 2 * mx * xy, 2 * mx * (mx * xy + my * xx) + 2 * xx * xy  # Cov(x^2, y), Cov(x^2, x y)
    y_product = mx * yy + my * xy  # Cov(y, x y)
    for w in range(2):
        expected = [
            [a[w] ** 2 * product + noise[w, 0] ** 2, a[w] * y_product + a[w] ** 2 * with_square],
            [
                a[w] * y_product + a[w] ** 2 * with_square,
                yy + a[w] ** 2 * square + 2 * a[w] * with_y + noise[w, 1] ** 2,
            ],
        ]
        torch.testing.assert_close(law.mean[w, 0, 0], torch.stack((a[w] * (mx * my + xy), my + a[w] * (mx**2 + xx))))
        torch.testing.assert_close(law.covariance[w, 0, 0], torch.tensor(expected, dtype=F64))


def test_a_family_that_draws_worlds_after_all_gets_the_same_ones_at_each_step() -> None:
    class Drawing(bwm.KnownDynamics):
        def moments(self, mean, covariance, action=None, *, context=None, worlds=64, generator=None):
            return super().moments(mean, covariance, action, context=context, worlds=worlds, generator=generator)

    given = {"structure": Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2)), "noise": 0.01}
    method, x0, actions = MomentMatching(pooled=True), torch.zeros(2), torch.ones(8, 1)
    found = bwm.propagate(Drawing(**given), x0, actions, method=method, worlds=5, generator=generator())
    seed = spawn_seeds(generator(), 1)[0]
    worlds = bwm.KnownDynamics(**given).draw(5, generator=generator(seed))
    same = bwm.propagate(worlds, x0, actions, method=method)
    torch.testing.assert_close(found.covariance, same.covariance)
    torch.testing.assert_close(found.epistemic_variance, same.epistemic_variance)
