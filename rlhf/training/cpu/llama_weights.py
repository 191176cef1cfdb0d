"""A Llama's matrices as decoding needs them, copied once for each call of the sampler."""

from typing import Any

import torch
from torch import Tensor

from rlhf.training.cpu.thin_products import Product, product


class LlamaWeights:
    """Each layer's query, key and value matrices are concatenated, as are gate and up, with the
    norms' weights multiplied into them and LoRA adapters added."""

    def __init__(self, model: Any, rows: int) -> None:
        """`rows` is how many sequences are decoded at once."""
        llama = model.base_model
        config = llama.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.eps = config.rms_norm_eps
        self.embeddings = llama.embed_tokens.weight
        self.rotary = llama.rotary_emb
        self.final_norm = llama.norm.weight
        self.layers = [Layer(layer, rows) for layer in llama.layers]
        self.head_size = llama.layers[0].self_attn.head_dim
        self.head = product(*_effective(model.get_output_embeddings()), rows)

    def rotation(self, positions: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the first positions, (positions, D) each: the rotation is x * cos +
        swapped(x) * sin, with the sign in the sine."""
        cos, sin = self.rotary(self.embeddings, torch.arange(positions)[None])
        half = cos.shape[-1] // 2
        return cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=1)


class Layer:
    """The products of one layer."""

    def __init__(self, layer: Any, rows: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv: Product = _stacked(
            (attention.q_proj, attention.k_proj, attention.v_proj),
            layer.input_layernorm.weight,
            rows,
        )
        self.out: Product = product(*_effective(attention.o_proj), rows)
        self.gate_up: Product = _stacked(
            (mlp.gate_proj, mlp.up_proj), layer.post_attention_layernorm.weight, rows
        )
        self.down: Product = product(*_effective(mlp.down_proj), rows)


def _stacked(linears: Any, norm: Tensor, rows: int) -> Product:
    """The product of several linear layers that read the same normed input."""
    parts = [_effective(linear) for linear in linears]
    biases = [bias for _, bias in parts if bias is not None]
    weight = torch.cat([weight for weight, _ in parts]).mul_(norm)
    return product(weight, torch.cat(biases) if biases else None, rows)


def _effective(linear: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer, with its LoRA adapters where they are switched on."""
    if not hasattr(linear, "get_delta_weight"):
        return linear.weight, linear.bias
    weight = linear.base_layer.weight
    if not linear.disable_adapters and not linear.merged:
        for name in linear.active_adapters:
            weight = weight + linear.get_delta_weight(name)
    return weight, linear.base_layer.bias
