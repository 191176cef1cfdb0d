"""Whether two ways of computing hidden states agree, but for rounding."""

from typing import Any

from torch import Tensor

from rlhf.training.architecture import unwrap_model


def relative_error(values: Tensor, expected: Tensor) -> float:
    """The largest distance of two rows of states (N, H), in lengths of the expected row. No unit."""
    distances = (values.float() - expected.float()).norm(dim=-1)
    return float((distances / expected.float().norm(dim=-1).clamp(min=1e-9)).max())


def rounding_error(model: Any) -> float:
    """The relative error of last hidden states up to which two ways of computing them agree: what
    rounding does in the model's precision, with room. A wrong mask is off by tenths."""
    dtype = next(unwrap_model(model).parameters()).dtype
    return 2e-3 if dtype.itemsize >= 4 else 0.05
