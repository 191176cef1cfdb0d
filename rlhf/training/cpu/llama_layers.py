"""Forward and backward pass of small Llamas on a CPU, with few operations.

Each half of a layer is one autograd function with its backward pass written out: matrices that read
the same input are concatenated, norms are multiplied into them, and positions whose output is not
used are skipped. The results are those of transformers up to rounding; tests compare values and
gradients with it. `has_fast_layers` checks whether a model is supported.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAX_KEPT_WIDTH = 256
"""Tokens of a row up to which the backward pass gets the attention weights, instead of flash
attention's recomputation."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def has_fast_layers(trunk: Any) -> bool:
    """Whether the trunk is a plain Llama in float32 on a CPU: without adapters, biases or shards."""
    config: Any = getattr(trunk, "config", None)
    if getattr(config, "model_type", "") != "llama" or type(trunk).__name__ != "LlamaModel":
        return False
    rope = config.rope_parameters or {}
    return bool(
        config.hidden_act == "silu"
        and config.num_key_value_heads == config.num_attention_heads
        and not config.attention_bias
        and not config.mlp_bias
        and rope.get("rope_type", "default") in ("default", "linear", "llama3")
        and not torch.is_autocast_enabled("cpu")
        and all(type(m.self_attn.q_proj) is torch.nn.Linear for m in trunk.layers)
        and all(type(m.mlp.up_proj) is torch.nn.Linear for m in trunk.layers)
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in trunk.parameters())
        and not any(hasattr(p, "full_tensor") for p in trunk.parameters())
    )


def hidden_states(trunk: Any, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
    """(N, H) last hidden states at the `positions` (N,) of the R * S in the flattened batch.

    `inputs` are as in `packing.Packed`; the trunk is one that `has_fast_layers` accepts.
    """
    ids = inputs["input_ids"]
    config = trunk.config
    heads, eps = config.num_attention_heads, config.rms_norm_eps
    position_ids = inputs.get("position_ids")
    if position_ids is None:
        position_ids = torch.arange(ids.shape[1]).expand(ids.shape)
    cos, sin = trunk.rotary_emb(trunk.embed_tokens.weight, position_ids.reshape(1, -1))
    half = cos.shape[-1] // 2
    # Rotation as x * cos + swapped(x) * (sin with a sign).
    cos, sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=1)
    mask = _mask_of(inputs, heads)
    x = trunk.embed_tokens(ids.flatten())
    last = len(trunk.layers) - 1
    for number, layer in enumerate(trunk.layers):
        attention, mlp = layer.self_attn, layer.mlp
        attended = _Attention.apply(
            x,
            layer.input_layernorm.weight,
            attention.q_proj.weight,
            attention.k_proj.weight,
            attention.v_proj.weight,
            (cos, sin, mask, ids.shape, heads, eps),
        )
        if number == last:  # only what is read is computed further
            x, attended = x[positions], attended[positions]
        x = _OutputAndMLP.apply(
            x,
            attended,
            attention.o_proj.weight,
            layer.post_attention_layernorm.weight,
            mlp.gate_proj.weight,
            mlp.up_proj.weight,
            mlp.down_proj.weight,
            eps,
        )
    return trunk.norm(x)


def _mask_of(inputs: dict[str, Tensor], heads: int) -> Tensor:
    """The additive mask that `_attention` takes; causal where the inputs have none."""
    rows, width = inputs["input_ids"].shape
    mask = inputs.get("attention_mask")
    if mask is None:
        mask = torch.full((width, width), float("-inf")).triu_(1).expand(rows, 1, width, width)
    if width > MAX_KEPT_WIDTH:
        return mask
    return mask[:, 0].expand(heads, rows, width, width).reshape(-1, width, width)


def _rms_norm(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x over its root mean square, and the reciprocal of that; (M, H) and (M, 1)."""
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[1])
    scale = scale.add_(eps).rsqrt_()
    return x * scale, scale


def _rms_norm_backward(grad: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    along = (grad * normed).mean(dim=-1, keepdim=True)
    return grad.addcmul_(normed, along, value=-1).mul_(scale)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (..., M, D)."""
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, torch.cat([x[..., half:], x[..., :half]], dim=-1), sin)


class _Attention(torch.autograd.Function):
    """Attention of (M, H) inputs, before the output matrix; M = R * S positions.

    Inside, heads come first: (heads, M, D), so that a product for every head and row is one `bmm`.
    """

    @staticmethod
    def forward(
        context: Any, x: Tensor, norm: Tensor, q: Tensor, k: Tensor, v: Tensor, layout: Any
    ) -> Tensor:
        cos, sin, mask, (rows, width), heads, eps = layout
        plain = torch.cat([q, k, v])
        weight = plain * norm
        normed, scale = _rms_norm(x, eps)
        both = (normed @ weight.t()).view(len(x), 3 * heads, -1).transpose(0, 1).contiguous()
        turned = _rotate(both[: 2 * heads], cos, sin)
        query, key, value = (
            t.view(heads * rows, width, -1)
            for t in (turned[:heads], turned[heads:], both[2 * heads :])
        )
        out, kept = _attention(query, key, value, mask, heads)
        context.save_for_backward(
            normed, scale, plain, norm, weight, query, key, value, cos, sin, mask, *kept
        )
        context.heads = heads
        return out.view(heads, len(x), -1).transpose(0, 1).reshape(len(x), -1)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> Any:
        normed, scale, plain, norm, weight, query, key, value, cos, sin, mask, *kept = (
            context.saved_tensors
        )
        heads, (_, width, size) = context.heads, query.shape
        grad = grad.view(len(normed), heads, size).transpose(0, 1).reshape(-1, width, size)
        d_both = grad.new_empty(3, heads, len(normed), size)
        d_parts = d_both.view(3, -1, width, size)
        _attention_backward(grad, query, key, value, mask, kept, heads, d_parts)
        # Turned back: the same rotation with the sine's sign changed.
        d_both[:2] = _rotate(d_both[:2], cos, -sin)
        d_both = d_both.view(3 * heads, len(normed), size).transpose(0, 1)
        d_both = d_both.reshape(len(normed), -1)
        d_weight = d_both.t() @ normed
        d_x = _rms_norm_backward(d_both @ weight, normed, scale)
        d_norm = (d_weight * plain).sum(dim=0)
        d_q, d_k, d_v = d_weight.mul_(norm).chunk(3)
        return d_x, d_norm, d_q, d_k, d_v, None


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Attention of (heads * R, S, D), and the tensors that its backward pass needs.

    Where rows are short, `mask` is additive, (heads * R, S, S), and the attention weights are kept
    for the backward pass, which is faster than torch's flash attention. The weights of long rows
    would take too much memory.
    """
    if mask.shape[-1] <= MAX_KEPT_WIDTH:
        weights = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
        weights = torch.softmax(weights, dim=-1)
        return torch.bmm(weights, value), (weights,)
    split = (t.unflatten(0, (heads, -1)).transpose(0, 1) for t in (query, key, value))
    out, sums = _flash(*split, attn_mask=mask)
    return out.transpose(0, 1).reshape(query.shape), (out, sums)


def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    kept: Sequence[Tensor],
    heads: int,
    into: Tensor,
) -> None:
    """Gradients of query, key and value, written `into` (3, heads * R, S, D)."""
    if mask.shape[-1] <= MAX_KEPT_WIDTH:
        (weights,) = kept
        torch.bmm(weights.transpose(1, 2), grad, out=into[2])
        d_weights = torch.bmm(grad, value.transpose(1, 2))
        d_sums = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, torch.float32)
        d_sums.mul_(query.shape[-1] ** -0.5)
        torch.bmm(d_sums, key, out=into[0])
        torch.bmm(d_sums.transpose(1, 2), query, out=into[1])
        return
    out, sums = kept
    grad, query, key, value = (
        t.unflatten(0, (heads, -1)).transpose(0, 1) for t in (grad, query, key, value)
    )
    grads = _flash_backward(
        *(grad, query, key, value, out, sums), dropout_p=0.0, is_causal=False, attn_mask=mask
    )
    for place, grad in zip(into, grads, strict=True):
        place.copy_(grad.transpose(0, 1).reshape(place.shape))


class _OutputAndMLP(torch.autograd.Function):
    """The residual stream (M, H) plus attention's output, then plus the MLP's output."""

    @staticmethod
    def forward(
        context: Any,
        x: Tensor,
        attended: Tensor,
        out: Tensor,
        norm: Tensor,
        gate: Tensor,
        up: Tensor,
        down: Tensor,
        eps: float,
    ) -> Tensor:
        x = torch.addmm(x, attended, out.t())
        plain = torch.cat([gate, up])
        weight = plain * norm
        normed, scale = _rms_norm(x, eps)
        both = normed @ weight.t()
        left, right = both.chunk(2, dim=-1)
        gated = torch.nn.functional.silu(left)
        inside = gated * right
        context.save_for_backward(
            attended, out, normed, scale, plain, norm, weight, both, gated, inside, down
        )
        return torch.addmm(x, inside, down.t())

    @staticmethod
    def backward(context: Any, grad: Tensor) -> Any:
        attended, out, normed, scale, plain, norm, weight, both, gated, inside, down = (
            context.saved_tensors
        )
        left, right = both.chunk(2, dim=-1)
        d_inside = grad @ down
        d_down = grad.t() @ inside
        d_both = torch.empty_like(both)
        d_left, d_right = d_both.chunk(2, dim=-1)
        torch.mul(d_inside, gated, out=d_right)
        d_left.copy_(torch.ops.aten.silu_backward(d_inside.mul_(right), left))
        d_weight = d_both.t() @ normed
        d_x = _rms_norm_backward(d_both @ weight, normed, scale).add_(grad)
        d_norm = (d_weight * plain).sum(dim=0)
        d_gate, d_up = d_weight.mul_(norm).chunk(2)
        return (
            *(d_x, d_x @ out, d_x.t() @ attended),
            *(d_norm, d_gate, d_up, d_down, None),
        )
