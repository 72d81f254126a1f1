# The public names, each once: `__init__.py` loads a name from here when it is first used, and type
# checkers read it.

from . import adapters as adapters
from . import probes as probes
from . import regularizers as regularizers
from . import strategies as strategies
from .adapters import Classifier as Classifier
from .adapters import load as load
from .adapters import load_many as load_many
from .adapters import prepare as prepare
from .adapters import save as save
from .api import compare as compare
from .api import forget as forget
from .api import predict as predict
from .api import run as run
from .api import validate as validate
from .baselines.few_shot import fewshot as fewshot
from .errors import GateError as GateError
from .errors import PeftuneError as PeftuneError
from .experiments import Run as Run
from .experiments import read_run as read_run
from .experiments.compare import Comparison as Comparison
from .experiments.evaluate import evaluate as evaluate
from .experiments.learning_curve import learning_curve as learning_curve
from .experiments.tune import tune as tune
from .findings import check as check
from .forgetting.callback import ForgettingCallback as ForgettingCallback
from .planning import plan as plan
from .recipe import Recipe as Recipe
from .recipe import read_recipe as read_recipe
from .reporting.report_writer import report as report
from .strategies import Full as Full
from .strategies import HeadOnly as HeadOnly
from .strategies import LoRA as LoRA
from .strategies import LoRA8bit as LoRA8bit
from .tasks.base import Prediction as Prediction
from .training.regularization import RegularizedTrainer as RegularizedTrainer

__version__: str
__all__: list[str]  # noqa: PYI035 - lazy_loader makes it from the names above
