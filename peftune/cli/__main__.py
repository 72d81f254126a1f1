"""`python -m peftune.cli` is `peftune`."""

from peftune.cli.main import main

main()
