"""Rollouts of 500 action sequences x 20 particles x 30 steps through an ensemble of 5, beside mbrl-lib.

Both run in processes of their own, in turn, and report process CPU seconds on one thread. Differences of the work:

* ``bayeswm.rollout`` returns every particle at every step and the law (mean and scale) it came from; mbrl-lib keeps
  neither, evaluates a reward and a termination function at each step, and returns the mean return of each sequence.
* mbrl-lib hands states from step to step through NumPy shapes of its ``ModelEnv``; both normalise their inputs.
* Fixed members: both give each particle one member for the whole horizon. Fresh member each step: both deal the
  particles out to the members evenly in a new random order.
"""

import argparse

import torch
from peers import own_lines, peer_lines
from system import ACTIONS, MEMBERS, SCHEMA, STATES, network, products
from timing import best_rate, comparison, cpu_median, emit, machine, median_of, set_up

from bayeswm import rollout
from bayeswm.base.random import make_generator
from bayeswm.base.worlds import StructureWorlds

SEQUENCES, PARTICLES, HORIZON = 500, 20, 30
FLOPS = HORIZON * products(SEQUENCES * PARTICLES)


def worlds() -> StructureWorlds:
    structure, parameters = network()
    return StructureWorlds(structure, SCHEMA, parameters, exhaustive=True)


def own() -> None:
    members, generator = worlds(), make_generator(1)
    actions = 2 * torch.rand(SEQUENCES, HORIZON, ACTIONS, generator=generator) - 1
    start = torch.zeros(STATES)
    for name, fresh in (("fixed", False), ("fresh", True)):

        def imagine(fresh: bool = fresh) -> None:
            with torch.no_grad():
                rollout(
                    members,
                    start,
                    actions,
                    particles=PARTICLES // MEMBERS,
                    generator=generator,
                    fresh_worlds=fresh,
                )

        emit(name, cpu_median(imagine, repeats=5))
    emit("rate", 0.0, rate=best_rate([400, 1000, 2000]))


def compare(rounds: int) -> None:
    print(f"rollouts, 500 sequences x 20 particles x 30 steps, E=5, 4x200 SiLU, 17+6 columns; {machine()}")
    peer, ours = [], []
    for _ in range(rounds):
        # the expectation mode, which follows, is another computation
        peer += peer_lines("bench_mbrl.py", "rollout", until=lambda line: str(line["config"]).startswith("TSinf"))
        ours += own_lines(__file__)
    rate = median_of(ours, "rate", "rate")
    for name, theirs in (("fixed", "TSinf"), ("fresh", "TS1")):
        a, b = median_of(peer, theirs), median_of(ours, name)
        print(f"  {name} members  {comparison(a, b)}")
        print(
            f"  {'':13s} products alone at the best rate: {1e3 * FLOPS / rate:.0f} ms, {FLOPS / rate / b:.0%} of ours"
        )
        if peer:
            print(f"  {'':13s} were all else free, the ratio would be {a * rate / FLOPS:.2f}")
    print(f"  best rate of the products (400, 1000 or 2000 rows): {rate / 1e9:.0f} GFLOP/s")
    if not peer:
        print("  ../shared/peers is not beside the checkout: ours alone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--own", action="store_true", help="run our side only and print JSON lines")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    set_up()
    own() if arguments.own else compare(arguments.rounds)
