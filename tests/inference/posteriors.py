"""The four posteriors of posteriordb that the reference answers are about, as batched log densities."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from arviz_stats.base import array_stats
from torch import Tensor
from torch.distributions import HalfCauchy, LogNormal, Normal

from bayeswm.inference.constraints import Unconstrained

F64 = torch.float64
Values = Mapping[str, Tensor]


@dataclass
class Posterior:
    """A posterior with its reference: ``log_joint`` takes constrained values, ``report`` makes those of the summary."""

    flat: Unconstrained
    log_joint: Callable[[Values], Tensor]
    summary: Mapping[str, Mapping[str, float]]
    report: Callable[[Values], Values] = dict

    def log_density(self, x: Tensor) -> Tensor:
        values, log_det = self.flat.constrain(x)
        return self.log_joint(values) + log_det

    def worst(self, positions: Tensor) -> float:
        """Largest distance from the reference in standard errors, of means and deviations; accepted below 4."""
        values, found = self.report(self.flat.constrain(positions)[0]), []
        for label, reference in self.summary.items():
            name, _, index = label.partition("[")
            draws = (values[name][..., int(index[:-1]) - 1] if index else values[name]).numpy()
            axes = {"chain_axis": 0, "draw_axis": 1}
            ess, mcse_sd = (
                float(array_stats.ess(draws, method="mean", **axes)),
                float(array_stats.mcse(draws, method="sd", **axes)),
            )
            error = math.hypot(reference["mcse_mean"], draws.std(ddof=1) / math.sqrt(ess))
            found.append(abs(draws.mean() - reference["mean"]) / error)
            found.append(abs(draws.std(ddof=1) - reference["sd"]) / math.hypot(reference["mcse_sd"], mcse_sd))
        return max(found)


def load(folder: Path, name: str) -> tuple[dict[str, Any], Mapping[str, Mapping[str, float]]]:
    content = json.loads((folder / "posteriordb" / f"{name}.json").read_text())
    return content["data"], content["summary"]


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=F64)


def gaussian(y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Log density up to a constant, by row."""
    return (-0.5 * ((y - mean) / scale).square() - scale.log()).flatten(1).sum(-1)


def autoregression(folder: Path) -> Posterior:
    data, summary = load(folder, "arK-arK")
    y, order = tensor(data["y"]), data["K"]
    lags = torch.stack([y[order - k : len(y) - k] for k in range(1, order + 1)])
    flat = Unconstrained(
        {"alpha": Normal(0.0, 10.0), "beta": Normal(torch.zeros(order), 10.0), "sigma": HalfCauchy(2.5)}
    )

    def log_joint(v: Values) -> Tensor:
        mean = v["alpha"][:, None] + v["beta"] @ lags
        return flat.log_prior(v) + gaussian(y[order:], mean, v["sigma"][:, None])

    return Posterior(flat, log_joint, summary)


def eight_schools(folder: Path) -> Posterior:
    data, summary = load(folder, "eight_schools-eight_schools_noncentered")
    y, sigma = tensor(data["y"]), tensor(data["sigma"])
    flat = Unconstrained({"theta_trans": Normal(torch.zeros(8), 1.0), "mu": Normal(0.0, 5.0), "tau": HalfCauchy(5.0)})

    def theta(v: Values) -> Tensor:
        return v["mu"][..., None] + v["tau"][..., None] * v["theta_trans"]

    def log_joint(v: Values) -> Tensor:
        return flat.log_prior(v) + gaussian(y, theta(v), sigma)

    return Posterior(flat, log_joint, summary, lambda v: {**v, "theta": theta(v)})


def kilpisjarvi(folder: Path) -> Posterior:
    data, summary = load(folder, "kilpisjarvi_mod-kilpisjarvi")
    x, y = tensor(data["x"]), tensor(data["y"])
    flat = Unconstrained(
        {
            "alpha": Normal(data["pmualpha"], data["psalpha"]),
            "beta": Normal(data["pmubeta"], data["psbeta"]),
            "sigma": LogNormal(0.0, 1.0),
        }
    )

    def log_joint(v: Values) -> Tensor:
        # the law of sigma serves the starts only: its prior is flat
        prior = flat.laws["alpha"].log_prob(v["alpha"]) + flat.laws["beta"].log_prob(v["beta"])
        return prior + gaussian(y, v["alpha"][:, None] + v["beta"][:, None] * x, v["sigma"][:, None])

    return Posterior(flat, log_joint, summary)


def lotka_volterra(folder: Path, *, substeps: int = 4) -> Posterior:
    """RK4 in log populations; 4 steps a year leave errors of at most 0.02 in the log density."""
    data, summary = load(folder, "hudson_lynx_hare-lotka_volterra")
    log_y = torch.cat((tensor(data["y_init"])[None], tensor(data["y"]))).log()
    flat = Unconstrained(
        {
            "theta": LogNormal(tensor([0.0, -3.0, 0.0, -3.0]), 0.5),  # for the starts only
            "z_init": LogNormal(torch.full((2,), math.log(10.0), dtype=F64), 1.0),
            "sigma": LogNormal(torch.full((2,), -1.0, dtype=F64), 1.0),
        }
    )
    location, scale = tensor([1.0, 0.05, 1.0, 0.05]), tensor([0.5, 0.05, 0.5, 0.05])
    h = 1 / substeps

    def log_joint(v: Values) -> Tensor:
        # d log u = t1 - t2 v, d log v = -t3 + t4 u; rows are (u, v)
        t1, t2, t3, t4 = v["theta"].unbind(-1)
        own, other = torch.stack((t1, -t3)), torch.stack((-t2, t4))

        def rate(w: Tensor) -> Tensor:
            return torch.addcmul(own, other, w.flip(0).exp())

        w = v["z_init"].log().mT
        path = [w]
        for _ in range(len(log_y) - 1):
            for _ in range(substeps):
                k1 = rate(w)
                k2 = rate(w.add(k1, alpha=h / 2))
                k3 = rate(w.add(k2, alpha=h / 2))
                k4 = rate(w.add(k3, alpha=h))
                w = w.add(k2 + k3, alpha=h / 3).add(k1 + k4, alpha=h / 6)
            path.append(w)
        mean = torch.stack(path).permute(2, 0, 1)
        prior = -0.5 * ((v["theta"] - location) / scale).square().sum(-1)
        prior = prior + sum(flat.laws[k].log_prob(v[k]).sum(-1) for k in ("z_init", "sigma"))
        return prior + gaussian(log_y, mean, v["sigma"][:, None].expand(-1, len(log_y), -1))

    return Posterior(flat, log_joint, summary)


POSTERIORS: dict[str, Callable[[Path], Posterior]] = {
    "autoregression": autoregression,
    "eight schools": eight_schools,
    "kilpisjarvi": kilpisjarvi,
    "lotka-volterra": lotka_volterra,
}
