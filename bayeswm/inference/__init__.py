"""Inference: from data to members, draws or weights."""

from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.convergence import ess_bulk, r_hat
from bayeswm.inference.draws import Draws
from bayeswm.inference.ensemble import EpochReport, TrainingState, train_ensemble
from bayeswm.inference.filtering import window_log_likelihood
from bayeswm.inference.gaussian_filter import GaussianBelief, LinearGaussian, Sensors, Unscented
from bayeswm.inference.gp_algebra import Kernel, Scaled
from bayeswm.inference.gp_exact import ExactPosterior, Hyper, log_marginal
from bayeswm.inference.gp_fit import OutputFit, fit_hyper
from bayeswm.inference.gp_gpytorch import from_gpytorch
from bayeswm.inference.gp_kernels import RBF, Matern
from bayeswm.inference.gp_periodic import Periodic
from bayeswm.inference.gp_priors import HyperPriors
from bayeswm.inference.hmc import HMC
from bayeswm.inference.importance import Weights, smooth_weights
from bayeswm.inference.joint import Inference, Inferred, Joint
from bayeswm.inference.likelihoods import (
    GaussianLikelihood,
    HeteroscedasticLikelihood,
    Likelihood,
    StudentTLikelihood,
)
from bayeswm.inference.particle_filter import ParticleFilter
from bayeswm.inference.pathwise import draw_paths, evaluate_paths
from bayeswm.inference.stacking import stack
from bayeswm.inference.student import StudentT
from bayeswm.inference.tempering import temper

__all__ = [
    "HMC",
    "RBF",
    "Draws",
    "EpochReport",
    "ExactPosterior",
    "GaussianBelief",
    "GaussianLikelihood",
    "HeteroscedasticLikelihood",
    "Hyper",
    "HyperPriors",
    "Inference",
    "Inferred",
    "Joint",
    "Kernel",
    "Likelihood",
    "LinearGaussian",
    "Matern",
    "OutputFit",
    "ParticleFilter",
    "Periodic",
    "Scaled",
    "Sensors",
    "StudentT",
    "StudentTLikelihood",
    "TrainingState",
    "Unconstrained",
    "Unscented",
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
    "temper",
    "train_ensemble",
    "window_log_likelihood",
]
