"""`python -m peftune` is `peftune`."""

from peftune.cli.main import main

main()
