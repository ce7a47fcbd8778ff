"""How the cost of a rollout grows with particles and horizon, and what memory it works in beyond what it returns."""

import argparse
import itertools
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
from ensemble_rollouts import SEQUENCES, worlds
from peers import lines
from system import ACTIONS, MEMBERS, STATES
from timing import emit, machine, set_up

from bayeswm import Predictive, rollout
from bayeswm.base.laws import Gaussian
from bayeswm.base.random import make_generator
from bayeswm.base.worlds import StructureWorlds

SIZES = (10, 20, 40, 80)


def plans(horizon: int) -> torch.Tensor:
    return 2 * torch.rand(SEQUENCES, horizon, ACTIONS, generator=make_generator(0)) - 1


def imagine(members: StructureWorlds, actions: torch.Tensor, *, particles: int, fresh: bool) -> Predictive:
    with torch.no_grad():
        return rollout(
            members,
            torch.zeros(STATES),
            actions,
            particles=particles // MEMBERS,
            generator=make_generator(1),
            fresh_worlds=fresh,
        )


def returned_bytes(result: Predictive) -> int:
    """Bytes of the storages that the particles and the laws keep alive, each counted once."""
    tensors = [result.particles]
    for law in result.laws:
        assert isinstance(law, Gaussian)
        tensors += [law.mean, law.spread]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def memory(horizon: int, *, fresh: bool) -> None:
    """Print the growth of this process's peak resident memory during one rollout, less what that returned."""
    members, actions = worlds(), plans(horizon)
    imagine(members, actions[:, :2], particles=20, fresh=fresh)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    # without this the peak could be that of the imports
    Path("/proc/self/clear_refs").write_text("5")
    result = imagine(members, actions, particles=20, fresh=fresh)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    kept = returned_bytes(result)
    emit(f"{horizon}", 0.0, kept=kept, working=1024 * int(peak.split()[1]) - before - kept)


def growth(name: str, *, fresh: bool, rounds: int) -> None:
    """Print CPU seconds for each size and the ratio of each to the one before."""
    members = worlds()
    times: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(rounds + 1):  # the first round warms up
        for size, found in times.items():
            actions = plans(size if name == "horizon" else 20)
            began = time.process_time()
            imagine(members, actions, particles=size if name == "particles" else 20, fresh=fresh)
            found.append(time.process_time() - began)
    medians = {size: statistics.median(found[1:]) for size, found in times.items()}
    ratios = [medians[b] / medians[a] for a, b in itertools.pairwise(SIZES)]
    listed = "  ".join(f"{size}: {seconds:.3f} s" for size, seconds in medians.items())
    print(f"  {name:9s} {listed}   a doubling costs {', '.join(f'{r:.2f}' for r in ratios)} times", flush=True)


def main(rounds: int) -> None:
    print(f"rollouts of 500 sequences, 20 particles and 20 steps unless varied, E=5, 4x200 SiLU; {machine()}")
    for fresh in (False, True):
        print(f" {'a fresh member each step' if fresh else 'fixed members'}")
        for name in ("particles", "horizon"):
            growth(name, fresh=fresh, rounds=rounds)
        if not Path("/proc/self/clear_refs").exists():
            print("  the peak of resident memory can be measured on Linux only")
            continue
        for horizon in (30, 300):
            command = [sys.executable, __file__, "--memory", str(horizon), *(["--fresh"] if fresh else [])]
            found = lines(command)[0]
            print(
                f"  horizon {horizon:3d}: peak memory {found['working'] / 1e6:.1f} MB beyond the particles and laws "
                f"returned ({found['kept'] / 1e6:.0f} MB)",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, metavar="HORIZON", help="measure the memory of one rollout")
    parser.add_argument("--fresh", action="store_true", help="with --memory: a fresh member each step")
    arguments = parser.parse_args()
    set_up()
    if arguments.memory:
        memory(arguments.memory, fresh=arguments.fresh)
    else:
        main(arguments.rounds)
