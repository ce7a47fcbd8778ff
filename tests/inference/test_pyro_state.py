import threading

import pyro
import pytest
import torch
from torch.distributions import Distribution, Normal

from bayeswm.base.random import make_generator
from bayeswm.inference import NUTS, SVI, AutoNormal, Joint
from bayeswm.inference.pyro_state import own_pyro

F64 = torch.float64
SEEN = torch.tensor([1.0, 2.0, 3.0], dtype=F64)


def joint() -> Joint:
    def log_likelihood(values, rows):
        return Normal(values["level"][:, None], 1.0).log_prob(SEEN if rows is None else SEEN[rows])

    return Joint({"level": Normal(0.0, 10.0)}, log_likelihood, terms=3)


def guide() -> None:
    loc = pyro.param("mine", torch.zeros((), dtype=F64))
    pyro.sample("level", pyro.distributions.Normal(loc, 0.6))


WAYS = {
    "NUTS": NUTS(draws=40, warmup=20),
    "SVI": SVI(guide=AutoNormal(), steps=30, draws=50),
    "SVI, guide of Pyro": SVI(guide=guide, steps=30, draws=50),
}


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
@pytest.mark.parametrize("name", WAYS)
def test_the_callers_state_is_as_before(name: str) -> None:
    pyro.get_param_store().clear()
    pyro.param("mine", torch.tensor(7.0))
    pyro.enable_validation(True)
    random, threads, checks = torch.get_rng_state(), torch.get_num_threads(), Distribution._validate_args
    try:
        found = WAYS[name].infer(joint(), generator=make_generator(0)).values["level"]
        assert list(pyro.get_param_store().keys()) == ["mine"]
        assert pyro.param("mine").item() == 7.0
    finally:
        pyro.get_param_store().clear()
    assert torch.equal(random, torch.get_rng_state())
    assert (torch.get_num_threads(), Distribution._validate_args) == (threads, checks)
    assert torch.get_default_dtype() == torch.float32
    # the same seed gives the same draws, wherever it is called
    torch.set_default_dtype(F64)
    try:
        with torch.inference_mode():
            again = WAYS[name].infer(joint(), generator=make_generator(0)).values["level"]
    finally:
        torch.set_default_dtype(torch.float32)
    # the numbers of a guide of Pyro have torch's default format
    torch.testing.assert_close(found, again, rtol=1e-4 if "Pyro" in name else 0, atol=0)


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
def test_fits_in_two_threads_give_what_they_give_alone() -> None:
    ways = [WAYS["NUTS"], WAYS["SVI, guide of Pyro"], WAYS["NUTS"], WAYS["SVI"]]
    alone = [w.infer(joint(), generator=make_generator(i)).values["level"] for i, w in enumerate(ways)]
    together: dict[int, torch.Tensor] = {}

    def fit(i: int) -> None:
        together[i] = ways[i].infer(joint(), generator=make_generator(i)).values["level"]

    threads = [threading.Thread(target=fit, args=(i,)) for i in range(len(ways))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, wanted in enumerate(alone):
        assert torch.equal(together[i], wanted), i


def test_blocks_may_stand_inside_each_other() -> None:
    with own_pyro(0):
        pyro.param("outer", torch.zeros(1))
        with own_pyro(1):
            assert list(pyro.get_param_store().keys()) == []
        assert list(pyro.get_param_store().keys()) == ["outer"]
