"""Runs our task file by Inspect with its mock model. Prints JSON."""

import json
import os
import sys
import tempfile
from types import SimpleNamespace

import tiktoken
from inspect_ai import eval as evaluate

# The mock model counts tokens with a vocabulary that tiktoken downloads.
tiktoken.get_encoding = lambda name: SimpleNamespace(encode=lambda text, **options: text.split())

os.chdir(sys.argv[1])  # `eval` takes no absolute path
with tempfile.TemporaryDirectory() as logs:
    [log] = evaluate("heldout.py", model="mockllm/model", log_dir=logs, display="none")
    print(  # samples are read from the log when they are asked for
        json.dumps(
            {
                "status": log.status,
                "ids": [sample.id for sample in log.samples],
                "turns": [
                    [(message.role, message.content) for message in sample.messages]
                    for sample in log.samples
                ],
                "metadata": [sample.metadata for sample in log.samples],
            }
        )
    )
