"""What a machine could do at best, to hold PPO's decoding and training against.

    python -m benchmarks.limits --device cuda --dtype bfloat16

Decoding reads all weights and the whole cache for every token, so memory is its limit; training is
matrix products. Both limits are measured here, by a copy and by a product of large matrices, not
looked up: what a card or a busy machine really gives is less than its data sheet says.

What is counted is what the model has to do, the same for everybody who runs it: real tokens, the
output head before response tokens only, attention over what precedes. Padding, a second reading of
the same thing or a head on a prompt's positions make a trainer slower and count for nothing.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

TRIES = 5

LONG_ENOUGH = 0.1
"""Seconds of a product that is large enough to measure a processor's speed."""


@dataclass(frozen=True)
class Machine:
    """What a device gives."""

    bytes_per_second: float
    """Read and written together, of a large copy."""
    flops: float
    """Of a product of two large square matrices in the type that is asked about, per second."""


def measure(device: str, dtype: str) -> Machine:
    """The best of some tries. On a GPU about 4 GiB are needed."""
    import torch

    gpu = device.startswith("cuda")

    def best(act: Callable[[], Any]) -> float:
        act()  # the first one warms up
        seconds = []
        for _ in range(TRIES):
            began = time.perf_counter()
            act()
            if gpu:
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    # Far more than a processor's caches hold.
    numbers = torch.ones((2048 if gpu else 256) * 1024**2, dtype=torch.uint8, device=device)
    there = torch.empty_like(numbers)
    copied = best(lambda: there.copy_(numbers))

    def product_seconds(size: int) -> float:
        matrix = torch.randn(size, size, device=device).to(getattr(torch, dtype))
        return best(lambda: matrix @ matrix)

    # A processor that emulates bfloat16 would take minutes for the largest product.
    size, largest = 256, 8192 if gpu else 2048
    while (multiplied := product_seconds(size)) < LONG_ENOUGH and size < largest:
        size *= 2
    return Machine(2 * numbers.numel() / copied, 2 * size**3 / multiplied)


@dataclass(frozen=True)
class Shape:
    """A decoder, as far as its cost goes."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    inside: int
    """Parameters of the layers, without embeddings and head."""
    read: int
    """Parameters that are read for one token: all but embeddings that are not the head too."""

    @classmethod
    def of(cls, model: Any) -> "Shape":
        """The shape of a causal language model of transformers."""
        config = model.config
        embeddings = model.get_input_embeddings().weight
        head = model.get_output_embeddings().weight
        tied = head is embeddings
        everything = sum(p.numel() for p in model.parameters())
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=head.shape[0],
            inside=everything - embeddings.numel() - (0 if tied else head.numel()),
            read=everything - (0 if tied else embeddings.numel()),
        )

    def cache_bytes(self, width: int) -> int:
        """Keys and values of one token, in numbers of `width` bytes."""
        return 2 * self.layers * self.kv_heads * self.head_size * width

    def trunk_flops(self, prompt: float, response: float) -> float:
        """One pass forward over a prompt and its response, without the head."""
        tokens = prompt + response
        # Scores and weighted values, each 2 operations for every pair of a token and one before it.
        attention = 2 * self.layers * self.heads * self.head_size * tokens**2
        return 2 * self.inside * tokens + attention

    def head_flops(self, response: float) -> float:
        """The output head before each response token, forward."""
        return 2 * self.vocabulary * self.hidden * response


@dataclass(frozen=True)
class Work:
    """One rollout and its updates: B responses in the middle, so long on average."""

    responses: int
    prompt: float
    response: float
    longest: int
    """The token budget of a response: as many steps are decoded for each batch."""
    decode_batch: int
    epochs: int
    width: int
    """Bytes of a number in a matrix product."""


def decode_bytes(shape: Shape, work: Work) -> float:
    """What decoding a rollout has to read: all weights at every step of each batch, and for every
    token what its response and prompt have in the cache by then."""
    batches = -(-work.responses // work.decode_batch)
    before = work.prompt * work.response + work.response**2 / 2
    weights = batches * work.longest * shape.read * work.width
    return weights + work.responses * before * shape.cache_bytes(work.width)


def decode_seconds(shape: Shape, work: Work, machine: Machine) -> float:
    """The least time for a rollout: prompts by the matrix product, tokens by memory."""
    prompts = work.responses * shape.trunk_flops(work.prompt, 0)
    return prompts / machine.flops + decode_bytes(shape, work) / machine.bytes_per_second


def training_flops(shape: Shape, work: Work, *, second_trunk: bool, frozen: bool = False) -> float:
    """What the updates of a rollout compute: forward, and twice as much backward, or once where the
    weights are `frozen` under adapters (whose own few are not counted). `second_trunk`: the critic is
    a model of its own, trained whole."""
    trunk = shape.trunk_flops(work.prompt, work.response)
    once = (2 if frozen else 3) * (trunk + shape.head_flops(work.response))
    return work.epochs * work.responses * (once + 3 * trunk * second_trunk)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    arguments = parser.parse_args()
    print(asdict(measure(arguments.device, arguments.dtype)))


if __name__ == "__main__":
    main()
