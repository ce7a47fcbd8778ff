"""`import bayeswm` is light: what it does not need at once is imported where it is used."""

import subprocess
import sys

HEAVY = ("arviz", "pyro", "gpytorch", "matplotlib", "gymnasium", "minari", "pandas", "pooch", "xarray")


def test_import_pulls_in_no_heavy_package():
    # A new interpreter: in this one, other tests have imported everything.
    program = f"import sys; import bayeswm; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_import_leaves_global_settings_alone():
    program = """
import random, warnings, numpy, torch
def settings():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state().tolist(),
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(), random.getstate(),
            str(numpy.random.get_state()), numpy.geterr(), numpy.get_printoptions(), warnings.filters[:])
torch.manual_seed(0)
before = settings()
import bayeswm
print(settings() == before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"


def test_all_of_planning_but_its_environments_without_gymnasium():
    program = """
import sys
sys.modules["gymnasium"] = None
from bayeswm.planning import *
print(CEM.__name__, "WorldModelEnv" in dir())
try:
    import bayeswm
    bayeswm.planning.WorldModelEnv
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "CEM False"
    assert "rl" in said[1]
