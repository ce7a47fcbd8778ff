"""Models: a structure and a way of being uncertain about it, as a posterior over worlds."""

from bayeswm.models.bayesian import BayesianDynamics, PosteriorDiagnostics
from bayeswm.models.deep_ensemble import DeepEnsemble
from bayeswm.models.gaussian_process import GaussianProcess
from bayeswm.models.known import KnownDynamics

__all__ = ["BayesianDynamics", "DeepEnsemble", "GaussianProcess", "KnownDynamics", "PosteriorDiagnostics"]
