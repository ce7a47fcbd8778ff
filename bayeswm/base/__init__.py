"""The contract: schema, trajectories, laws, worlds, predictives, models."""

from bayeswm.base.errors import (
    BayeswmError,
    BayeswmWarning,
    CheckpointError,
    ConfoundedError,
    DataError,
    DataWarning,
    DivergenceWarning,
    EstimateWarning,
    FitError,
    FitWarning,
    NotInvertible,
    SpecError,
    SupportWarning,
    UndefinedWarning,
    UnknownVariableError,
)
from bayeswm.base.hierarchy import Hierarchical
from bayeswm.base.kinds import Kind, categorical
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.mixture import Estimate, LogScore
from bayeswm.base.model import DynamicsModel
from bayeswm.base.moments import Moments
from bayeswm.base.parts import AleatoricParts, aleatoric_parts
from bayeswm.base.predictive import Predictive
from bayeswm.base.rollout import rollout
from bayeswm.base.saving import load
from bayeswm.base.schema import Schema, Variable, Variables
from bayeswm.base.structure import Parameter, Structure, Trigonometric
from bayeswm.base.trajectories import Trajectories, Transitions
from bayeswm.base.worlds import MarkovWorlds, Noise, StructureWorlds, Worlds

__all__ = [
    "AleatoricParts",
    "BayeswmError",
    "BayeswmWarning",
    "CheckpointError",
    "ConfoundedError",
    "DataError",
    "DataWarning",
    "DivergenceWarning",
    "DynamicsModel",
    "Estimate",
    "EstimateWarning",
    "FitError",
    "FitWarning",
    "Gaussian",
    "Hierarchical",
    "Kind",
    "Law",
    "LogScore",
    "MarkovWorlds",
    "Moments",
    "MultivariateGaussian",
    "Noise",
    "NotInvertible",
    "Parameter",
    "Predictive",
    "Schema",
    "SpecError",
    "Structure",
    "StructureWorlds",
    "SupportWarning",
    "Trajectories",
    "Transitions",
    "Trigonometric",
    "UndefinedWarning",
    "UnknownVariableError",
    "Variable",
    "Variables",
    "Worlds",
    "aleatoric_parts",
    "categorical",
    "load",
    "rollout",
]
