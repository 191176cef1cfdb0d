"""A stand-in for vLLM's server, which can't be installed for these tests: it speaks the parts of its
documented protocol that PPO uses, and really samples, with the model and the adapters of transformers
and peft and none of our own code.
"""

import copy
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

KEY = "kettle-3f9d"


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # all prompts of a rollout come at once


class StandIn:
    """Serves one base model on the loopback address."""

    def __init__(self, base, *, port=0, dtype=torch.float32, raw=False):
        self.base, self.raw = base, raw
        # Here and once: transformers can't load models in two threads at the same time.
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        self.adapters, self.asked, self.loaded = {}, [], 0
        self.spoil = lambda choice: choice
        self.refuses, self.delay = {}, threading.Event()
        self.waits = 0.0
        self.lives = 10**9
        self.lock = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                entry = {"id": "served-name", "object": "model", "root": stand_in.base}
                self.say(200, {"object": "list", "data": [entry]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.headers.get("Authorization") != f"Bearer {KEY}":
                    return self.say(401, {"error": "Unauthorized"})
                name = self.path.removeprefix("/v1/")
                if name in stand_in.refuses:
                    return self.say(*stand_in.refuses[name])
                if stand_in.delay.wait(stand_in.waits):
                    return None  # whoever asked has gone
                with stand_in.lock:
                    return self.say(200, getattr(stand_in, name)(body))

            def say(self, status, value):
                told = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

        self.http = Listener(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.delay.set()
        self.http.shutdown()
        self.http.server_close()

    def load_lora_adapter(self, body):
        assert body["load_inplace"] is True
        model = PeftModel.from_pretrained(copy.deepcopy(self.model), body["lora_path"])
        self.adapters[body["lora_name"]] = model.eval()
        self.loaded += 1
        if self.loaded == self.lives:
            threading.Thread(target=self.stop).start()
        return f"Success: LoRA adapter '{body['lora_name']}' added successfully."

    def unload_lora_adapter(self, body):
        del self.adapters[body["lora_name"]]
        return "Success"

    def completions(self, body):
        self.asked.append(body)
        model = self.adapters[body["model"]]
        generator = torch.Generator().manual_seed(body["seed"])
        choices = []
        for index in range(body["n"]):
            ids, logprobs, reason = [], [], "length"
            while len(ids) < body["max_tokens"] and reason == "length":
                with torch.no_grad():
                    row = torch.tensor([body["prompt"] + ids])
                    logits = model(input_ids=row).logits[0, -1].float()
                scaled = torch.log_softmax(logits / body["temperature"], dim=0)
                token = int(torch.multinomial(scaled.exp(), 1, generator=generator))
                told = torch.log_softmax(logits, dim=0) if self.raw else scaled
                ids.append(token)
                logprobs.append(float(told[token]))
                if token in body["stop_token_ids"]:
                    reason = "stop"
            choices.append(
                {
                    "index": index,
                    "text": "",
                    "finish_reason": reason,
                    "token_ids": ids,
                    "prompt_token_ids": body["prompt"],
                    "logprobs": {"token_logprobs": logprobs},
                }
            )
        return {"object": "text_completion", "choices": [self.spoil(c) for c in choices[::-1]]}
