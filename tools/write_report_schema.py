"""Write the JSON schema of reports anew, after a class that reports are made of has changed."""

from __future__ import annotations

import json
from pathlib import Path

from peftune.experiments import report_file

target = Path(report_file.__file__).with_name("report.schema.json")
target.write_text(json.dumps(report_file.report_json_schema(), indent=1) + "\n", encoding="utf-8")
print(f"Written: {target}")
