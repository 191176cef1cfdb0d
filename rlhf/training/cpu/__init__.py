"""Optimizations for small models on a CPU, behind one interface.

`forward_pass` asks for hidden states, `decoding` for a decoder, `parallel` for forked processes;
each also has a plain implementation (transformers' own forward pass and cache, torch.distributed)
with the same results up to rounding, which is easier to read. Decisions 0016 and 0025 describe the
benefits and costs of this folder.
"""

from rlhf.training.cpu.forked_workers import ForkedWorkers, can_fork, fork
from rlhf.training.cpu.llama_decoder import LlamaDecoder
from rlhf.training.cpu.llama_layers import has_fast_layers, hidden_states
from rlhf.training.cpu.llama_weights import LlamaWeights

__all__ = [
    "ForkedWorkers",
    "LlamaDecoder",
    "LlamaWeights",
    "can_fork",
    "fork",
    "has_fast_layers",
    "hidden_states",
]
