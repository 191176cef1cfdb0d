"""Token-by-token decoding for small Llamas on a CPU, with few operations.

Python overhead dominates a small model's time; this decoder has a third of transformers' operations,
with matrices
concatenated and a cache that is allocated once and written in place.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class LlamaDecoder:
    """`decoding.Decoder` for a Llama.

    Each layer's query, key and value matrices are concatenated, as are gate and up, with the norms'
    weights multiplied into them and LoRA adapters added. All rows write to the same column of the
    cache, because prompts are padded on the left.
    """

    def __init__(self, model: Any, room: int) -> None:
        llama = model.base_model
        self.config = llama.config
        self.room = room
        self.embeddings = llama.embed_tokens.weight
        self.rotary = llama.rotary_emb
        self.final_norm = llama.norm.weight
        self.layers = [_Layer(layer) for layer in llama.layers]

    @staticmethod
    def can_decode(model: Any) -> bool:
        """Whether the model (without LoRA's wrapper) is a plain Llama in float32 on a CPU."""
        config = getattr(model, "config", None)
        rope = getattr(config, "rope_parameters", None) or {}
        return bool(
            getattr(config, "model_type", "") == "llama"
            and getattr(config, "hidden_act", "") == "silu"
            and rope.get("rope_type", "default") in ("default", "linear", "llama3")
            and not torch.is_autocast_enabled("cpu")
            and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
        )

    def read(self, ids: Tensor, mask: Tensor, k: int) -> Tensor:
        """Read left-padded prompts (B, T) for k rows each."""
        config, (rows, width) = self.config, ids.shape
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        size = self.layers[0].head_size
        self.eps = config.rms_norm_eps
        self.heads, self.kv_heads, self.size, self.column = heads, kv_heads, size, width
        columns = width + self.room
        cos, sin = self.rotary(self.embeddings, torch.arange(columns)[None])
        # Rotation as x * cos + swapped(x) * (sin with a sign).
        signed = torch.cat([-sin[0, :, : size // 2], sin[0, :, size // 2 :]], dim=1)
        self.cos, self.sin = cos[0], signed
        positions = mask.cumsum(dim=1).sub_(1).clamp_(min=0)
        self.blocked = torch.zeros(rows, columns).masked_fill_(
            torch.cat([mask == 0, mask.new_zeros(rows, self.room, dtype=torch.bool)], dim=1),
            float("-inf"),
        )
        causal = torch.full((width, width), float("-inf")).triu_(1)
        # A padded position sees itself, or its softmax would be over nothing.
        seen = (self.blocked[:, None, None, :width] + causal).clone()
        seen.diagonal(dim1=-2, dim2=-1).zero_()

        x = self.embeddings[ids.flatten()]
        cos, sin = self.cos[positions.flatten()][:, None], self.sin[positions.flatten()][:, None]
        self.cache = []
        for layer in self.layers:
            q, key, value = self._project(layer, x, cos, sin)
            q, key, value = (t.view(rows, width, -1, size).transpose(1, 2) for t in (q, key, value))
            keys = torch.zeros(rows * k, kv_heads, columns, size)
            values = torch.zeros(rows * k, kv_heads, columns, size)
            keys[:, :, :width] = key.repeat_interleave(k, dim=0) if k > 1 else key
            values[:, :, :width] = value.repeat_interleave(k, dim=0) if k > 1 else value
            self.cache.append((keys, values))
            attended = functional.scaled_dot_product_attention(
                q, key, value, attn_mask=seen, enable_gqa=heads != kv_heads
            )
            x = self._finish(layer, x, attended.transpose(1, 2).reshape(rows * width, -1))
        self.position = mask.sum(dim=1)
        if k > 1:
            self.position = self.position.repeat_interleave(k)
            self.blocked = self.blocked.repeat_interleave(k, dim=0)
        hidden = self._norm(x.view(rows, width, -1)[:, -1]) * self.final_norm
        return hidden.repeat_interleave(k, dim=0) if k > 1 else hidden

    def step(self, tokens: Tensor) -> Tensor:
        x = self.embeddings[tokens]
        cos, sin = self.cos[self.position][:, None], self.sin[self.position][:, None]
        column, rows = self.column, len(tokens)
        blocked = self.blocked[:, None, None, : column + 1]
        for layer, (keys, values) in zip(self.layers, self.cache, strict=True):
            q, key, value = self._project(layer, x, cos, sin)
            keys[:, :, column], values[:, :, column] = key, value
            attended = functional.scaled_dot_product_attention(
                q[:, :, None],
                keys[:, :, : column + 1],
                values[:, :, : column + 1],
                attn_mask=blocked,
                enable_gqa=self.heads != self.kv_heads,
            )
            x = self._finish(layer, x, attended.view(rows, -1))
        self.column += 1
        self.position = self.position + 1
        return self._norm(x) * self.final_norm

    def keep(self, rows: Tensor) -> None:
        columns = self.column
        kept = []
        for keys, values in self.cache:
            shape = (len(rows), *keys.shape[1:])
            both = keys.new_zeros(shape), values.new_zeros(shape)
            both[0][:, :, :columns] = keys[rows, :, :columns]
            both[1][:, :, :columns] = values[rows, :, :columns]
            kept.append(both)
        self.cache = kept
        self.blocked, self.position = self.blocked[rows], self.position[rows]

    def _norm(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)

    def _project(
        self, layer: "_Layer", x: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values; each (rows, heads, head size)."""
        both = functional.linear(self._norm(x), layer.qkv, layer.qkv_bias)
        both = both.view(len(x), -1, self.size)
        turned = both[:, : self.heads + self.kv_heads]
        half = self.size // 2
        swapped = torch.cat([turned[..., half:], turned[..., :half]], dim=-1)
        turned = torch.addcmul(turned * cos, swapped, sin)
        return (
            turned[:, : self.heads],
            turned[:, self.heads :],
            both[:, self.heads + self.kv_heads :],
        )

    def _finish(self, layer: "_Layer", x: Tensor, attended: Tensor) -> Tensor:
        x = torch.addmm(x, attended, layer.out)
        if layer.out_bias is not None:
            x = x + layer.out_bias
        gate, up = functional.linear(self._norm(x), layer.gate_up, layer.gate_up_bias).chunk(2, -1)
        x = torch.addmm(x, functional.silu(gate).mul_(up), layer.down)
        return x if layer.down_bias is None else x + layer.down_bias


class _Layer:
    """Copies of one layer's matrices, made when sampling begins."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.head_size = attention.head_dim
        parts = [_effective(p) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
        self.qkv = torch.cat([w for w, _ in parts]) * layer.input_layernorm.weight
        self.qkv_bias = None if parts[0][1] is None else torch.cat([_not_none(b) for _, b in parts])
        out, self.out_bias = _effective(attention.o_proj)
        self.out = out.t()
        parts = [_effective(p) for p in (mlp.gate_proj, mlp.up_proj)]
        self.gate_up = torch.cat([w for w, _ in parts]) * layer.post_attention_layernorm.weight
        self.gate_up_bias = (
            None if parts[0][1] is None else torch.cat([_not_none(b) for _, b in parts])
        )
        down, self.down_bias = _effective(mlp.down_proj)
        self.down = down.t()


def _effective(linear: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer, with its LoRA adapters where they are switched on."""
    if not hasattr(linear, "get_delta_weight"):
        return linear.weight, linear.bias
    weight = linear.base_layer.weight
    if not linear.disable_adapters and not linear.merged:
        for name in linear.active_adapters:
            weight = weight + linear.get_delta_weight(name)
    return weight, linear.base_layer.bias


def _not_none(bias: Tensor | None) -> Tensor:
    assert bias is not None
    return bias
