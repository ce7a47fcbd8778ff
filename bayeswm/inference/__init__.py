"""Inference: from data to members, draws or weights."""

from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.convergence import ess_bulk, r_hat
from bayeswm.inference.draws import Draws
from bayeswm.inference.ensemble import EpochReport, TrainingState, train_ensemble
from bayeswm.inference.gp_algebra import Kernel, Product, Scaled, Sum
from bayeswm.inference.gp_exact import ExactPosterior, Hyper, log_marginal
from bayeswm.inference.gp_fit import OutputFit, fit_hyper
from bayeswm.inference.gp_gpytorch import from_gpytorch
from bayeswm.inference.gp_kernels import RBF, Matern, Periodic
from bayeswm.inference.gp_priors import HyperPriors
from bayeswm.inference.hmc import HMC
from bayeswm.inference.importance import Weights, smooth_weights
from bayeswm.inference.pathwise import draw_paths, evaluate_paths
from bayeswm.inference.stacking import stack

__all__ = [
    "HMC",
    "RBF",
    "Draws",
    "EpochReport",
    "ExactPosterior",
    "Hyper",
    "HyperPriors",
    "Kernel",
    "Matern",
    "OutputFit",
    "Periodic",
    "Product",
    "Scaled",
    "Sum",
    "TrainingState",
    "Unconstrained",
    "Weights",
    "draw_paths",
    "ess_bulk",
    "evaluate_paths",
    "fit_hyper",
    "from_gpytorch",
    "log_marginal",
    "r_hat",
    "smooth_weights",
    "stack",
    "train_ensemble",
]
