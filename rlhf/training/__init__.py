"""The training side: plain Python, no Django, no database. See docs/formats.md."""

import gc
import sys

STARTING = sys.argv[:1] == ["-m"]
"""Whether this process is a stage's own (`python -m rlhf.training.<stage>`), which may be lean."""

if STARTING:
    # Importing torch and transformers makes a million objects that all stay; looking for garbage
    # among them costs a fifth of the start-up. run_stage switches the collector on again.
    gc.disable()
    from rlhf.training import lean

    lean.import_torch()
