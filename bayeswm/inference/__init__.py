"""Inference: from data to members, draws or weights."""

from bayeswm.inference.ensemble import EpochReport, TrainingState, train_ensemble
from bayeswm.inference.stacking import stack

__all__ = ["EpochReport", "TrainingState", "stack", "train_ensemble"]
