"""Training steps of an ensemble of 5 networks of 4 x 200 SiLU units, batch 256, beside mbrl-lib.

Both run in processes of their own, in turn, and report process CPU seconds on one thread. Differences of the work:

* With gathering: each side picks its members' batches out of 20,000 rows (ours: the loop of ``train_ensemble``, which
  also adds up the loss; mbrl-lib: ``BootstrapIterator`` over NumPy arrays, then tensors and normalisation).
* Prebuilt: one batch is used over and over. mbrl-lib still turns it from NumPy into tensors and normalises it.
* mbrl-lib learns the bounds of its log variances and computes the norm of the gradient; ours are fixed and it does not.
* Adam with weight decay on both sides.
"""

import argparse

import torch
from peers import own_lines, peer_lines
from system import MEMBERS, network, products, transitions
from timing import best_rate, comparison, cpu_median, emit, machine, median_of, set_up

from bayeswm.base.random import make_generator
from bayeswm.inference.ensemble import TrainingState, _epoch, _optimiser, _shuffle
from bayeswm.structures.mlp import nll_gradient_
from bayeswm.structures.networks import run, run_back

BATCH, ROWS, STEPS = 256, 20_000, 20
# each layer's product comes three times, but for the first one's gradient by its inputs
FLOPS = MEMBERS * (3 * products(BATCH) - 2 * BATCH * 23 * 200)


def own() -> None:
    structure, parameters = network()
    objective = structure.objective(parameters, transitions(ROWS))
    generator = make_generator(2)
    optimiser = _optimiser(objective.trained, TrainingState(parameters, generator.get_state()), 5e-5)
    rows = _shuffle(torch.arange(ROWS), None, members=MEMBERS, generator=generator)[:, : STEPS * BATCH]

    def gathering() -> None:
        _epoch(objective, optimiser, rows, batch_size=BATCH, rate=1e-3)

    emit("gathering", cpu_median(gathering, repeats=9, steps=STEPS))
    first = rows[:, :BATCH]
    x, y, work = objective.x[first], objective.y[first], objective._work[BATCH]

    def prebuilt() -> None:
        for _ in range(STEPS):
            nll_gradient_(run(objective.flat, x, work), y, objective.prior)
            run_back(objective.flat, work)
            optimiser.step()

    emit("prebuilt", cpu_median(prebuilt, repeats=9, steps=STEPS))
    emit("rate", 0.0, rate=best_rate([BATCH]))


def compare(rounds: int) -> None:
    print(f"ensemble training step, E=5, 4x200 SiLU, batch 256, 17+6 columns; {machine()}")
    peer, ours = [], []
    for _ in range(rounds):
        peer += peer_lines("bench_mbrl.py", "train", until=lambda line: "E=5 same" in str(line["config"]))
        ours += own_lines(__file__)
    rate = median_of(ours, "rate", "rate")
    for name, theirs in (("gathering", "E=5 same"), ("prebuilt", "E=5 4x200")):
        a, b = median_of(peer, theirs), median_of(ours, name)
        print(f"  {name:10s} {comparison(a, b)}")
        print(
            f"  {'':10s} products alone at the best rate: {1e3 * FLOPS / rate:.2f} ms, {FLOPS / rate / b:.0%} of ours"
        )
    print(f"  best rate of the products ({BATCH} rows): {rate / 1e9:.0f} GFLOP/s")
    if not peer:
        print("  ../shared/peers is not beside the checkout: ours alone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--own", action="store_true", help="run our side only and print JSON lines")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    set_up()
    own() if arguments.own else compare(arguments.rounds)
