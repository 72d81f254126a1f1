"""Adapters and checkpoints on disk: small, readable without peftune, and bound to their base."""

from peftune.adapters.classifier import Classifier
from peftune.adapters.loading import load
from peftune.adapters.saving import save
from peftune.adapters.training_script import prepare

__all__ = ["Classifier", "load", "prepare", "save"]
