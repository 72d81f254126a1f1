"""`python -m peftune` is `peftune`."""

from peftune.cli.signals import STOPS
from peftune.processes import end_with_parent

# Before all else is imported, which takes longer.
STOPS.listen()
end_with_parent()

from peftune.cli.main import main  # noqa: E402 - see above

main()
