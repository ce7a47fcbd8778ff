import json

import pytest
import torch

from bayeswm.base import SpecError
from bayeswm.structures import Leapfrog
from bayeswm.structures.mechanics import arguments, described


def test_numbers_laws_and_integrator_survive_json():
    law = torch.distributions.LogNormal(torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64))
    text = json.dumps(described({"mass": law, "length": 0.5}, Leapfrog(substeps=3), limit=None, time_step=0.02))
    found = arguments(json.loads(text))
    assert (found["length"], found["limit"], found["time_step"]) == (0.5, None, 0.02)
    assert found["integrator"] == Leapfrog(substeps=3)
    assert torch.equal(found["mass"].mean, law.mean)


def test_an_unknown_integrator_is_refused():
    config = described({}, Leapfrog(), time_step=0.1)
    config["integrator"]["method"] = "Magic"
    with pytest.raises(SpecError, match="Magic"):
        arguments(config)
