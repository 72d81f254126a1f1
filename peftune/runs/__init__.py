"""One run from recipe to report, and the forgetting of what others made."""

from peftune.diagnosis import Finding
from peftune.runs.execute import run
from peftune.runs.folder import read_run
from peftune.runs.forget import forget
from peftune.runs.report import Cost, Forgetting, Run

__all__ = ["Cost", "Finding", "Forgetting", "Run", "forget", "read_run", "run"]
