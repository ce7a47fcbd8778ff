"""Rollouts of 100 worlds x 10 particles x 30 steps of a Gaussian process, 200 training points, 4 outputs, beside peers.

All run in processes of their own, in turn, and report process CPU seconds on one thread. Differences of the work:

* Ours is ``bayeswm.rollout`` of drawn worlds in float64: 10 particles share the function of their world, process noise
  is added, and every particle and law is kept. Shown with drawing the functions and without, for the default of 512
  waves and for 1,024. A wave is a cosine with an amplitude and a phase, hence two of BoTorch's features: its default of
  1,024 features are 512 frequencies, and one set of these serves all paths; ours has one for each world.
* BoTorch's ``draw_matheron_paths``: a path for each of 1,000 particles, as the peers' script has it, and 100 paths of
  10 particles each, as ours; float64, no noise, nothing is kept.
* GPyTorch draws each particle's step anew from its marginal posterior, in float32: no function at all.
"""

import argparse
from pathlib import Path

import torch
from gp_predict import fitted
from peers import interpreter, lines, own_lines, peer_lines
from timing import comparison, cpu_median, emit, machine, median_of, set_up

import bayeswm as bwm
from bayeswm.base.random import make_generator

WORLDS, PARTICLES, HORIZON, ROWS = 100, 10, 30, 200


def own() -> None:
    model, generator = fitted(ROWS), make_generator(1)
    start, plan = torch.zeros(4, dtype=torch.float64), torch.zeros(HORIZON, 1, dtype=torch.float64)
    for features in (512, 1024):
        model.features = features

        def imagine(worlds: bwm.Worlds) -> None:
            with torch.no_grad():
                bwm.rollout(worlds, start, plan, particles=PARTICLES, generator=generator)

        drawn = model.draw(WORLDS, generator=generator)
        emit(f"{features} drawn", cpu_median(lambda worlds=drawn: imagine(worlds), repeats=5))
        emit(
            f"{features} with drawing",
            cpu_median(lambda: imagine(model.draw(WORLDS, generator=generator)), repeats=5),
        )


def compare(rounds: int) -> None:
    print(f"GP rollouts, {WORLDS} worlds x {PARTICLES} particles x {HORIZON} steps, N={ROWS}, 4 outputs; {machine()}")
    peer, ours = [], []
    python = interpreter()
    for _ in range(rounds):
        # joint draws of all particles, which follow, take a minute
        peer += peer_lines(
            "bench_gpytorch.py", "rollout", until=lambda line: str(line["config"]).startswith("marginal")
        )
        ours += own_lines(__file__)
        if python is not None:
            peer += lines([str(python), "-W", "ignore", str(Path(__file__).with_name("gp_paths_botorch.py"))])
    for features in (512, 1024):
        for name, whose, theirs, what in (
            ("GPyTorch", "resampled each step", "marginal resampling", "with drawing"),
            ("BoTorch", "1,000 paths", "draw_matheron_paths", "with drawing"),
            ("BoTorch", "1,000 paths", "paths predrawn", "drawn"),
            ("BoTorch", "100 paths", "100 paths, with drawing", "with drawing"),
            ("BoTorch", "100 paths", "100 paths, predrawn", "drawn"),
        ):
            text = comparison(median_of(peer, theirs), median_of(ours, f"{features} {what}"), name=name)
            print(f"  {features:4d} waves, {what:12s} {whose:20s} {text}")
    if not peer:
        print("  ../shared/peers is not beside the checkout: ours alone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--own", action="store_true", help="run our side only and print JSON lines")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    set_up()
    own() if arguments.own else compare(arguments.rounds)
