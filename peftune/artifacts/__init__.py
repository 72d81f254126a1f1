"""Adapters and checkpoints on disk: small, readable without peftune, and bound to their base."""

from peftune.artifacts.classifier import Classifier
from peftune.artifacts.load import load
from peftune.artifacts.prepare import prepare
from peftune.artifacts.save import save

__all__ = ["Classifier", "load", "prepare", "save"]
