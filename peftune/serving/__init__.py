"""Many adapters on one base in memory."""

from peftune.serving.classifier_set import ClassifierSet
from peftune.serving.load import load_many

__all__ = ["ClassifierSet", "load_many"]
