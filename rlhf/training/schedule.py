"""The schedule of the learning rate."""


def learning_rate_at(step: int, *, peak: float, warmup: int, total: int, floor: float) -> float:
    """The learning rate of update `step` (from 0): linear warm-up, then linear decay to `floor` *
    peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    left = (total - step) / max(total - warmup, 1)
    return peak * (floor + (1 - floor) * min(max(left, 0.0), 1.0))
