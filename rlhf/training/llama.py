"""A Llama's layers in few operations, for small ones on a CPU.

Each half of a layer is one autograd function with its backward pass written out: matrices that read
the same input are put together, norms are scaled into them, and nothing is computed for positions
whose output nobody reads. What it computes is what transformers computes, up to rounding; tests
hold values and gradients against it. `reads` says which models it is for; all others go through
transformers.
"""

from typing import Any

import torch
from torch import Tensor

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def reads(trunk: Any) -> bool:
    """Whether the trunk is a plain Llama in float32 on a CPU: no adapters, no biases."""
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
    )


def states(trunk: Any, inputs: dict[str, Tensor], wanted: Tensor) -> Tensor:
    """(N, H) last hidden states at the `wanted` (N,) of the R * S positions, each at most once.

    `inputs` are as in `packing.Packed`; the trunk is one that `reads` accepts.
    """
    ids = inputs["input_ids"]
    config = trunk.config
    heads, eps = config.num_attention_heads, config.rms_norm_eps
    positions = inputs.get("position_ids")
    if positions is None:
        positions = torch.arange(ids.shape[1]).expand(ids.shape)
    cos, sin = trunk.rotary_emb(trunk.embed_tokens.weight, positions.reshape(1, -1))
    half = cos.shape[-1] // 2
    # Rotation in one product: x * cos + swapped(x) * signed sin.
    cos, sin = cos[0, :, None], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=1)[:, None]
    mask = inputs.get("attention_mask")
    x = trunk.embed_tokens(ids.flatten())
    last = len(trunk.layers) - 1
    for number, layer in enumerate(trunk.layers):
        attention, mlp = layer.self_attn, layer.mlp
        attended = _Attend.apply(
            x,
            layer.input_layernorm.weight,
            attention.q_proj.weight,
            attention.k_proj.weight,
            attention.v_proj.weight,
            (cos, sin, mask, ids.shape, heads, eps),
        )
        if number == last:  # only what is read goes on
            x, attended = x[wanted], attended[wanted]
        x = _Transform.apply(
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


def _normed(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x over its root mean square, and one over that; (M, H) and (M, 1)."""
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[1])
    scale = scale.add_(eps).rsqrt_()
    return x * scale, scale


def _normed_backward(grad: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    along = (grad * normed).mean(dim=-1, keepdim=True)
    return grad.addcmul_(normed, along, value=-1).mul_(scale)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (M, heads, D)."""
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, torch.cat([x[..., half:], x[..., :half]], dim=-1), sin)


class _Attend(torch.autograd.Function):
    """(M, H) to what each position attends to, before the output matrix; M = R * S positions."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, norm: Tensor, q: Tensor, k: Tensor, v: Tensor, layout: Any
    ) -> Tensor:
        cos, sin, mask, (rows, width), heads, eps = layout
        plain = torch.cat([q, k, v])
        weight = plain * norm
        normed, scale = _normed(x, eps)
        both = (normed @ weight.t()).view(len(x), 3 * heads, -1)
        turned = _rotate(both[:, : 2 * heads], cos, sin)
        query, key, value = (
            t.view(rows, width, heads, -1).transpose(1, 2)
            for t in (turned[:, :heads], turned[:, heads:], both[:, 2 * heads :])
        )
        out, sums = _flash(query, key, value, 0.0, mask is None, attn_mask=mask)
        context.save_for_backward(
            normed, scale, plain, norm, weight, query, key, value, out, sums, cos, sin, mask
        )
        context.heads = heads
        return out.transpose(1, 2).reshape(len(x), -1)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> Any:
        normed, scale, plain, norm, weight, query, key, value, out, sums, cos, sin, mask = (
            context.saved_tensors
        )
        heads, (rows, _, width, size) = context.heads, query.shape
        grads = _flash_backward(
            grad.reshape(rows, width, heads, size).transpose(1, 2),
            *(query, key, value, out, sums, 0.0, mask is None),
            attn_mask=mask,
        )
        d_query, d_key, d_value = (g.transpose(1, 2).reshape(-1, heads, size) for g in grads)
        # Turned back: the same rotation with the sine's sign changed.
        turned = _rotate(torch.cat([d_query, d_key], dim=1), cos, -sin)
        d_both = torch.cat([turned, d_value], dim=1).view(len(normed), -1)
        d_weight = d_both.t() @ normed
        d_x = _normed_backward(d_both @ weight, normed, scale)
        d_norm = (d_weight * plain).sum(dim=0)
        d_q, d_k, d_v = d_weight.mul_(norm).chunk(3)
        return d_x, d_norm, d_q, d_k, d_v, None


class _Transform(torch.autograd.Function):
    """What was attended to is added, then the MLP's answer; (M, H) in and out."""

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
        normed, scale = _normed(x, eps)
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
        d_x = _normed_backward(d_both @ weight, normed, scale).add_(grad)
        d_norm = (d_weight * plain).sum(dim=0)
        d_gate, d_up = d_weight.mul_(norm).chunk(2)
        return d_x, d_x @ out, d_x.t() @ attended, d_norm, d_gate, d_up, d_down, None
