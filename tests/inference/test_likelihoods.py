import torch
from torch.distributions import Exponential, Normal

from bayeswm.base import Gaussian
from bayeswm.base.random import make_generator
from bayeswm.base.trajectories import Transitions
from bayeswm.inference import GaussianLikelihood, HeteroscedasticLikelihood, Likelihood, StudentT, StudentTLikelihood
from bayeswm.structures import Pendulum

F64 = torch.float64
SCHEMA = Pendulum().schema


def data(n: int = 40) -> Transitions:
    g = make_generator(0)
    state, action = torch.randn(n, 2, generator=g, dtype=F64), torch.randn(n, 1, generator=g, dtype=F64)
    row = torch.arange(n)
    return Transitions(state, action, torch.empty(n, 0, dtype=F64), state + 0.1, row, row)


def test_gaussian() -> None:
    mean, scale = torch.zeros(3, 2, 5, 2), torch.ones(2)
    law = GaussianLikelihood().law(
        mean, scale, schema=SCHEMA, parameters={}, inputs=(mean, mean[..., :1], mean[..., :0])
    )
    assert isinstance(law, Gaussian)
    assert GaussianLikelihood().parameters(SCHEMA, data()) == {}


def test_student_t_has_degrees_of_freedom_for_each_column() -> None:
    laws = StudentTLikelihood().parameters(SCHEMA, data())
    assert laws["degrees_of_freedom"].batch_shape == (2,)
    assert laws["degrees_of_freedom"].mean.tolist() == [20.0, 20.0]
    nu = torch.tensor([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], dtype=F64)
    mean = torch.zeros(3, 2, 5, 2, dtype=F64)
    inputs = (mean, mean[..., :1], mean[..., :0])
    law = StudentTLikelihood().law(
        mean, torch.ones(2, dtype=F64), schema=SCHEMA, parameters={"degrees_of_freedom": nu}, inputs=inputs
    )
    assert isinstance(law, StudentT)
    assert law.degrees_of_freedom.shape == mean.shape
    assert law.degrees_of_freedom[1, 0, 0].tolist() == [5.0, 6.0]


def test_heteroscedastic_noise_is_log_linear_in_standardised_inputs() -> None:
    d = data()
    added = HeteroscedasticLikelihood().parameters(SCHEMA, d)
    assert added["noise_slope"].batch_shape == (2, 4)  # sine, cosine, velocity, torque
    center, spread = added["noise_center"], added["noise_spread"]
    slope = torch.zeros(3, 2, 4, dtype=F64)
    slope[1, 0, 2] = 0.7  # world 1: the angle's noise grows with the velocity
    parameters = {"noise_slope": slope, "noise_center": center.expand(3, 4), "noise_spread": spread.expand(3, 4)}
    mean = torch.zeros(3, 1, 40, 2, dtype=F64)
    scale = torch.tensor([0.1, 0.2], dtype=F64)
    law = HeteroscedasticLikelihood().law(
        mean, scale, schema=SCHEMA, parameters=parameters, inputs=(d.state[None, None], d.action, d.context)
    )
    wanted = 0.1 * (0.7 * (d.state[:, 1] - d.state[:, 1].mean()) / d.state[:, 1].std(correction=0)).exp()
    torch.testing.assert_close(law.variance[1, 0, :, 0].sqrt(), wanted)
    torch.testing.assert_close(law.variance[1, 0, :, 1].sqrt(), scale[1].expand(40))
    torch.testing.assert_close(law.variance[0, 0].sqrt(), scale.expand(40, 2))


def test_settings_are_rebuilt() -> None:
    for given, name, value in (
        (StudentTLikelihood(Exponential(0.1)), "degrees_of_freedom", 0.1),
        (HeteroscedasticLikelihood(Normal(0.0, 0.2)), "slope", 0.2),
    ):
        again = Likelihood.registry[type(given).__name__].from_config(given.config())
        law = getattr(again, name)
        assert type(law) is type(getattr(given, name))
        assert float(law.rate if isinstance(law, Exponential) else law.scale) == torch.tensor(value)
    assert StudentTLikelihood.from_config(StudentTLikelihood().config()) == StudentTLikelihood()
