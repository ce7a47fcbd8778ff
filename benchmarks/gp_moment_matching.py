"""Moment-matching rollouts of 30 steps, 4 outputs, 5 inputs, with a linear policy, beside nrontsis/PILCO.

All run in processes of their own, in turn, and report process CPU seconds on one thread, in float64. Differences of the
work:

* PILCO is TensorFlow 2 and GPflow 2, compiled by ``tf.function``. As shipped it decomposes the data's covariance at
  every step of a rollout; "factors at hand" is 30 times its step without that. Its policy's action is squashed by a
  sine, and a reward is computed, both of which cost little.
* Ours is ``GaussianProcess.moments`` in a loop, with all checks. "Gradient" is a rollout and the gradient of a cost of
  its states by the policy's parameters.

PILCO needs an interpreter with ``tensorflow``, ``gpflow`` (and ``tf-keras``, ``pandas``) and a clone of its source:
``--tensorflow PYTHON --pilco FOLDER``. Without them ours is shown alone.
"""

import argparse

import torch
from gp_predict import fitted
from peers import SCRIPTS, lines, own_lines
from timing import comparison, cpu_median, emit, machine, median_of, set_up

import bayeswm as bwm

HORIZON, ROWS = 30, (200, 500)


def imagine(model: bwm.GaussianProcess, gain: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Cost of a rollout in which the action is gain @ state + offset."""
    mean, covariance = torch.zeros(4, dtype=gain.dtype), 0.1 * torch.eye(4, dtype=gain.dtype)
    both = torch.cat((torch.eye(4, dtype=gain.dtype), gain))
    shift = torch.cat((torch.zeros(4, dtype=gain.dtype), offset))
    cost = torch.zeros((), dtype=gain.dtype)
    for _ in range(HORIZON):
        found = model.moments(both @ mean + shift, both @ covariance @ both.T)
        mean, covariance = found.mean, found.covariance
        cost = cost + mean.square().sum() + covariance.diagonal().sum()
    return cost


def own() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows in ROWS:
        model = fitted(rows)
        gain = 0.1 * torch.randn(1, 4, generator=generator, dtype=torch.float64)
        offset = torch.zeros(1, dtype=torch.float64)
        emit(f"{rows} value", cpu_median(lambda m=model, k=gain, b=offset: imagine(m, k, b), repeats=7))
        learned = [v.clone().requires_grad_() for v in (gain, offset)]

        def gradient(model: bwm.GaussianProcess = model, learned: list[torch.Tensor] = learned) -> None:
            torch.autograd.grad(imagine(model, *learned), learned)

        emit(f"{rows} gradient", cpu_median(gradient, repeats=7))


def compare(rounds: int, python: str | None, folder: str | None) -> None:
    print(f"GP moment matching, {HORIZON} steps, 4 outputs, 5 inputs, linear policy; {machine()}")
    script = SCRIPTS / "bench_pilco.py"
    peer, ours = [], []
    for _ in range(rounds):
        if python is not None and folder is not None and script.is_file():
            source = f"import runpy, sys; sys.path[:0] = [{folder!r}, {str(SCRIPTS)!r}]; sys.argv[1:] = ['tf']"
            found = lines([python, "-W", "ignore", "-c", f"{source}; runpy.run_path({str(script)!r})"])
            peer += [
                {**line, "config": f"{line['task']} {line['config']}"} for line in found if "PILCO" in line["peer"]
            ]
        ours += own_lines(__file__)
    for rows in ROWS:
        value, gradient = median_of(ours, f"{rows} value"), median_of(ours, f"{rows} gradient")
        start = f"N={rows} D=5 E=4"
        shipped = median_of(peer, f"pilco_rollout30 {start}")
        ready = HORIZON * median_of(peer, f"pilco_mm_step {start} tf.function")
        print(f"  N={rows}, value, as shipped       {comparison(shipped, value, name='PILCO')}")
        print(f"  N={rows}, value, factors at hand  {comparison(ready, value, name='PILCO')}")
        theirs = median_of(peer, f"pilco_rollout30_grad {start}")
        print(f"  N={rows}, with gradient           {comparison(theirs, gradient, name='PILCO')}")
        print(f"  N={rows}, with gradient / value: {gradient / value:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--own", action="store_true", help="run our side only and print JSON lines")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tensorflow", help="interpreter that has tensorflow and gpflow")
    parser.add_argument("--pilco", help="clone of nrontsis/PILCO")
    arguments = parser.parse_args()
    set_up()
    own() if arguments.own else compare(arguments.rounds, arguments.tensorflow, arguments.pilco)
