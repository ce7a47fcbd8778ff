"""Inference: from data to members, draws or weights."""

from bayeswm.inference.ensemble import EpochReport, TrainingState, train_ensemble
from bayeswm.inference.gp_exact import ExactPosterior, Hyper, log_marginal
from bayeswm.inference.gp_fit import HyperPriors, OutputFit, fit_hyper
from bayeswm.inference.gp_kernels import RBF, Kernel, Matern
from bayeswm.inference.pathwise import draw_paths, evaluate_paths
from bayeswm.inference.stacking import stack

__all__ = [
    "RBF",
    "EpochReport",
    "ExactPosterior",
    "Hyper",
    "HyperPriors",
    "Kernel",
    "Matern",
    "OutputFit",
    "TrainingState",
    "draw_paths",
    "evaluate_paths",
    "fit_hyper",
    "log_marginal",
    "stack",
    "train_ensemble",
]
