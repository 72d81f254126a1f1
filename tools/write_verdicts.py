"""Write the page of verdicts anew, after a change of what peftune says of planted scenarios."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"


def main() -> None:
    """Compare the runs of every scenario, and write what is said."""
    sys.path.insert(0, str(TESTS))
    from scenarios import SCENARIOS, WRONG
    from verdicts import PAGE, Said, page

    text = page([Said.of(scenario) for scenario in SCENARIOS.values()], WRONG)
    PAGE.write_text(text, encoding="utf-8")
    print(f"Written: {PAGE}. Read the difference before you commit it.")


main()
