"""Coverage of the notebook on the Silverbox at up to 1,000 steps: runs the notebook, then 40 long forecasts a model.

Measured data are found as the notebooks find them (`BAYESWM_DATA`). About six CPU minutes.
"""

import runpy
import time
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "silverbox.py"

begun = time.process_time()
found = runpy.run_path(str(NOTEBOOK))
print(f"notebook: {time.process_time() - begun:.0f} CPU s")
for part in ("multisine_test", "arrow_inner", "arrow"):
    print(part)
    print(found["coverage"](part, [1, 10, 100, 1000], 1000).round(3).to_string())
print(f"all: {time.process_time() - begun:.0f} CPU s")
