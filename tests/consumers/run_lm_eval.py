"""Runs our task folder by lm-eval with its dummy model, twice through its registry. Prints JSON."""

import json
import sys

import lm_eval
from lm_eval.tasks import TaskManager

manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
[name] = [task for task in manager.all_tasks if task.endswith("_heldout")]
found = lm_eval.simple_evaluate(
    model="dummy", tasks=[name], task_manager=manager, log_samples=True, bootstrap_iters=0
)
samples = found["samples"][name]
print(
    json.dumps(
        {
            "task": name,
            "prompts": [sample["arguments"][0][0] for sample in samples],
            "docs": [sample["doc"] for sample in samples],
            "metrics": [key for key in found["results"][name] if key.startswith("words")],
        },
        default=str,
    )
)
