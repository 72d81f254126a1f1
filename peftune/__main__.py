"""`python -m peftune` is `peftune`."""

from peftune.cli.signals import STOPS

STOPS.listen()  # before all else is imported, which takes longer

from peftune.cli.main import main  # noqa: E402 - see above

main()
