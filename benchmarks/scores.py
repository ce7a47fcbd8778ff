"""CRPS of 1,000 draws x 10,000 observations and energy score of 1,000 draws x 100 observations x 4, beside the peers.

scoringrules and properscoring run in a process of their own by the peers' script, in turn with ours; process CPU
seconds on one thread, float64. Differences of the work:

* scoringrules' fast estimators (``qd``, ``pwm``) and properscoring sort each row by NumPy and then integrate; ours
  sorts by NumPy too. ``numpy.sort`` alone is the limit of all three; how fast it is depends on the processor: on Zen 4
  NumPy's AVX-512 sort takes twice the time of its AVX2 one. That one is chosen, for both sides, by
  ``NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL"`` in the environment.
* Ours are the fair estimators; qd and properscoring's give the score of the draws as a discrete law.
* scoringrules' energy score computes all ordered pairs, ours each pair once.
"""

import argparse

import numpy as np
import torch
from peers import own_lines, peer_lines
from timing import cpu_median, emit, machine, median_of, set_up

from bayeswm.diagnostics import crps_samples, energy_score

OBSERVATIONS, DRAWS = 10_000, 1_000


def own() -> None:
    rng = np.random.default_rng(0)
    y, x = (torch.from_numpy(rng.standard_normal(s)) for s in (OBSERVATIONS, (OBSERVATIONS, DRAWS)))
    emit("crps", cpu_median(lambda: crps_samples(x.T, y), repeats=5))
    rows = x.numpy()
    emit("sort", cpu_median(lambda: np.sort(rows, axis=1), repeats=5))
    came, draws = (torch.from_numpy(rng.standard_normal(s)) for s in ((100, 4), (100, DRAWS, 4)))
    emit("energy", cpu_median(lambda: energy_score(draws.transpose(0, 1), came), repeats=5))


def last_of_crps(line: dict[str, object]) -> bool:
    return line["peer"] == "properscoring"


def last_of_energy(line: dict[str, object]) -> bool:
    return str(line["config"]).startswith("torch nrg 100 obs")


def compare(rounds: int) -> None:
    print(f"proper scores from samples, float64; {machine()}")
    peer, ours = [], []
    for _ in range(rounds):
        ours += own_lines(__file__)
        peer += peer_lines("bench_scores.py", "crps", until=last_of_crps)
        peer += peer_lines("bench_scores.py", "energy", until=last_of_energy)
    crps, energy, sort = (median_of(ours, name) for name in ("crps", "energy", "sort"))
    print(f"  CRPS, {DRAWS} draws x {OBSERVATIONS}: bayeswm {1e3 * crps:.1f} ms (numpy.sort {1e3 * sort:.1f})")
    for name, start, who in (
        ("scoringrules numba, qd", "numba qd", "scoringrules"),
        ("scoringrules numba, pwm", "numba pwm", "scoringrules"),
        ("properscoring", f"{OBSERVATIONS} obs", "properscoring"),
    ):
        seconds = median_of([line for line in peer if line["peer"] == who], start)
        print(f"    {name:24s} {1e3 * seconds:8.1f} ms   ratio {seconds / crps:.2f}")
    print(f"  energy score, 100 observations x {DRAWS} draws x 4: bayeswm {1e3 * energy:.1f} ms")
    for backend in ("numba", "numpy", "torch"):
        seconds = median_of(peer, f"{backend} nrg 100 obs")
        print(f"    scoringrules {backend:11s} {1e3 * seconds:8.1f} ms   ratio {seconds / energy:.2f}")
    if not peer:
        print("  ../shared/peers is not beside the checkout: ours alone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--own", action="store_true", help="run our side only and print JSON lines")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    set_up()
    own() if arguments.own else compare(arguments.rounds)
