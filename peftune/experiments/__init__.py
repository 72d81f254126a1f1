"""One run from recipe to report, and the forgetting of what others made."""

from peftune.experiments.forget import forget
from peftune.experiments.report import Cost, Forgetting, Run
from peftune.experiments.run_execution import run
from peftune.experiments.run_folder import read_run
from peftune.findings.finding import Finding

__all__ = ["Cost", "Finding", "Forgetting", "Run", "forget", "read_run", "run"]
