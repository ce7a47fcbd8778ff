"""BoTorch's side of ``gp_rollouts.py`` with 100 paths of 10 particles each; runs in the peers' environment."""

import warnings

import torch
from botorch.models import SingleTaskGP
from botorch.sampling.pathwise import draw_matheron_paths
from gp_botorch import data
from timing import cpu_median, emit, set_up

PATHS, PARTICLES, HORIZON, ROWS = 100, 10, 30, 200


def measure() -> None:
    model = SingleTaskGP(*data(ROWS)).eval()

    def imagine(paths: torch.nn.Module) -> None:
        x = torch.zeros(PATHS, 1, PARTICLES, 4, dtype=torch.float64)
        action = torch.zeros(PATHS, 1, PARTICLES, 1, dtype=torch.float64)
        for _ in range(HORIZON):
            x = x + 0.1 * paths(torch.cat((x, action), -1)).view(PATHS, 4, 1, PARTICLES).permute(0, 2, 3, 1)

    with torch.no_grad():
        paths = draw_matheron_paths(model, torch.Size([PATHS]))
        emit("100 paths, predrawn", cpu_median(lambda: imagine(paths), repeats=3))
        emit(
            "100 paths, with drawing",
            cpu_median(lambda: imagine(draw_matheron_paths(model, torch.Size([PATHS]))), repeats=3),
        )


if __name__ == "__main__":
    set_up()
    warnings.simplefilter("ignore")
    measure()
