"""Inference: from data to members, draws or weights."""

from bayeswm.inference.arviz_pyro import from_pyro
from bayeswm.inference.conjugate import Conjugate
from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.convergence import ess_bulk, r_hat
from bayeswm.inference.curvature import Curvature, Diagonal, FullHessian, GaussNewton, Kronecker, LastLayer
from bayeswm.inference.draws import Draws
from bayeswm.inference.ensemble import EpochReport, TrainingState, train_ensemble
from bayeswm.inference.filtering import window_log_likelihood
from bayeswm.inference.gaussian_belief import GaussianBelief, Sensors
from bayeswm.inference.gaussian_filter import LinearGaussian, Unscented
from bayeswm.inference.gp_algebra import Kernel, Scaled
from bayeswm.inference.gp_coregional import (
    CoregionalHyper,
    Coregionalised,
    coregional_marginal,
    fit_coregional,
    rotation,
)
from bayeswm.inference.gp_exact import ExactPosterior, Hyper, log_marginal
from bayeswm.inference.gp_fit import fit_hyper
from bayeswm.inference.gp_gpytorch import from_gpytorch
from bayeswm.inference.gp_kernels import RBF, Matern
from bayeswm.inference.gp_moments import InputMoments, RBFMoments
from bayeswm.inference.gp_optimise import OutputFit
from bayeswm.inference.gp_periodic import Periodic
from bayeswm.inference.gp_priors import HyperPriors
from bayeswm.inference.gp_sparse import Bound, SparsePosterior, choose_inducing, collapsed_bound
from bayeswm.inference.gp_sparse_fit import InducingPoints, fit_sparse
from bayeswm.inference.guides import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal, Guide
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
from bayeswm.inference.nuts import NUTS
from bayeswm.inference.particle_filter import ParticleFilter
from bayeswm.inference.pathwise import draw_paths, evaluate_paths
from bayeswm.inference.pyro_model import PyroJoint
from bayeswm.inference.stacking import stack
from bayeswm.inference.student import StudentT
from bayeswm.inference.svi import SVI
from bayeswm.inference.tempering import temper

__all__ = [
    "HMC",
    "NUTS",
    "RBF",
    "SVI",
    "AutoLowRankMultivariateNormal",
    "AutoMultivariateNormal",
    "AutoNormal",
    "Bound",
    "Conjugate",
    "CoregionalHyper",
    "Coregionalised",
    "Curvature",
    "Diagonal",
    "Draws",
    "EpochReport",
    "ExactPosterior",
    "FullHessian",
    "GaussNewton",
    "GaussianBelief",
    "GaussianLikelihood",
    "Guide",
    "HeteroscedasticLikelihood",
    "Hyper",
    "HyperPriors",
    "InducingPoints",
    "Inference",
    "Inferred",
    "InputMoments",
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
    "Periodic",
    "PyroJoint",
    "RBFMoments",
    "Scaled",
    "Sensors",
    "SparsePosterior",
    "StudentT",
    "StudentTLikelihood",
    "TrainingState",
    "Unconstrained",
    "Unscented",
    "Weights",
    "choose_inducing",
    "collapsed_bound",
    "coregional_marginal",
    "draw_paths",
    "ess_bulk",
    "evaluate_paths",
    "fit_coregional",
    "fit_hyper",
    "fit_sparse",
    "from_gpytorch",
    "from_pyro",
    "log_marginal",
    "r_hat",
    "rotation",
    "smooth_weights",
    "stack",
    "temper",
    "train_ensemble",
    "window_log_likelihood",
]
