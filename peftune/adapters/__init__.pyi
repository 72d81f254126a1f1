# The public names of this package, each once: `__init__.py` loads a name from here when it is
# first used, and type checkers read it.

import peftune.experiments.rescale

from .classifier import Classifier as Classifier
from .classifier_set import ClassifierSet as ClassifierSet
from .classifier_set import load_many as load_many
from .difference import ArtifactDifference as ArtifactDifference
from .difference import diff as diff
from .hub.push import push as push
from .inspection import Contents as Contents
from .inspection import inspect as inspect
from .loading import load as load
from .merged_checkpoint import Merged as Merged
from .merged_checkpoint import merge as merge
from .saving import save as save
from .training_script import prepare as prepare
from .verification import Verification as Verification
from .verification import verify as verify

rescale = peftune.experiments.rescale.rescale
