"""All benchmarks, one after another, each a program of its own: what `make bench` runs."""

import os
import subprocess
import sys
from pathlib import Path

from peers import ONE_THREAD, interpreter

PROGRAMS = (
    "counterfactual_speed.py",
    "ensemble_training.py",
    "ensemble_rollouts.py",
    "rollout_scaling.py",
    "gp_fit.py",
    "gp_botorch.py",
    "gp_predict.py",
    "gp_rollouts.py",
    "gp_sparse.py",
    "hmc_sampling.py",
    "planning_speed.py",
    "silverbox.py",
    "scores.py",
    "svi_steps.py",
)


def main() -> int:
    if interpreter() is None:
        print("no ../shared/peers beside the checkout: ours alone\n", flush=True)
    failed = []
    for program in PROGRAMS:
        path = Path(__file__).with_name(program)
        if subprocess.run([sys.executable, str(path)], env={**os.environ, **ONE_THREAD}, check=False).returncode:
            failed.append(program)
        print(flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
