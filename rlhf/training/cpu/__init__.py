"""What only makes small models fast on a CPU, behind one door.

`forward_pass` asks for hidden states, `decoding` for a decoder, `parallel` for forked processes; each
has a plain way as well (transformers' own forward pass and cache, torch.distributed), which gives
the same up to rounding and is the one to read. Decisions 0016 and 0025 say what this folder gives and
costs.
"""

from rlhf.training.cpu.forked_workers import ForkedWorkers, can_fork, fork
from rlhf.training.cpu.llama_decoder import LlamaDecoder
from rlhf.training.cpu.llama_layers import has_fast_layers, hidden_states

__all__ = [
    "ForkedWorkers",
    "LlamaDecoder",
    "can_fork",
    "fork",
    "has_fast_layers",
    "hidden_states",
]
