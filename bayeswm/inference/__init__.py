"""Inference: from data to members, draws or weights."""

from bayeswm.inference.conjugate import Conjugate
from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.convergence import ess_bulk, r_hat
from bayeswm.inference.curvature import Curvature, Diagonal, FullHessian, GaussNewton, Kronecker, LastLayer
from bayeswm.inference.draws import Draws
from bayeswm.inference.ensemble import EpochReport, TrainingState, train_ensemble
from bayeswm.inference.filtering import window_log_likelihood
from bayeswm.inference.gaussian_belief import GaussianBelief, Sensors
from bayeswm.inference.gaussian_filter import LinearGaussian, Unscented
from bayeswm.inference.gp_exact import ExactPosterior, Hyper, log_marginal
from bayeswm.inference.gp_fit import HyperPriors, OutputFit, fit_hyper
from bayeswm.inference.gp_kernels import RBF, Kernel, Matern
from bayeswm.inference.hmc import HMC
from bayeswm.inference.importance import Weights, smooth_weights
from bayeswm.inference.joint import Inference, Inferred, Joint
from bayeswm.inference.laplace import Laplace
from bayeswm.inference.likelihoods import (
    GaussianLikelihood,
    HeteroscedasticLikelihood,
    Likelihood,
    StudentTLikelihood,
)
from bayeswm.inference.normal_inverse_gamma import NormalInverseGamma
from bayeswm.inference.particle_filter import ParticleFilter
from bayeswm.inference.pathwise import draw_paths, evaluate_paths
from bayeswm.inference.stacking import stack
from bayeswm.inference.student import StudentT
from bayeswm.inference.tempering import temper

__all__ = [
    "HMC",
    "RBF",
    "Conjugate",
    "Curvature",
    "Diagonal",
    "Draws",
    "EpochReport",
    "ExactPosterior",
    "FullHessian",
    "GaussNewton",
    "GaussianBelief",
    "GaussianLikelihood",
    "HeteroscedasticLikelihood",
    "Hyper",
    "HyperPriors",
    "Inference",
    "Inferred",
    "Joint",
    "Kernel",
    "Kronecker",
    "Laplace",
    "LastLayer",
    "Likelihood",
    "LinearGaussian",
    "Matern",
    "NormalInverseGamma",
    "OutputFit",
    "ParticleFilter",
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
    "log_marginal",
    "r_hat",
    "smooth_weights",
    "stack",
    "temper",
    "train_ensemble",
    "window_log_likelihood",
]
