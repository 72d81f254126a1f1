"""Is more data worth it? The error by the number of training rows, and what doubling them would give."""

from peftune.scaling.curve import learning_curve
from peftune.scaling.power_law import PowerLaw
from peftune.scaling.results import LearningCurve, Size

__all__ = ["LearningCurve", "PowerLaw", "Size", "learning_curve"]
