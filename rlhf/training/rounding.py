"""Whether two implementations compute the same hidden states up to rounding."""

from typing import Any

from torch import Tensor

from rlhf.training.architecture import unwrap_model


def relative_error(values: Tensor, expected: Tensor) -> float:
    """The largest distance of two rows of states (N, H), in lengths of the expected row. No unit."""
    distances = (values.float() - expected.float()).norm(dim=-1)
    return float((distances / expected.float().norm(dim=-1).clamp(min=1e-9)).max())


def rounding_error(model: Any) -> float:
    """The relative error of last hidden states up to which two ways of computing them agree: the
    rounding error in the model's precision, with a margin. A wrong mask gives errors of some
    tenths."""
    dtype = next(unwrap_model(model).parameters()).dtype
    return 2e-3 if dtype.itemsize >= 4 else 0.05
