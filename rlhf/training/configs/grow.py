"""The configuration of the stage `grow`."""

from dataclasses import dataclass

from rlhf.training.configs.shared import MOST_LAYERS, SeededConfig
from rlhf.training.settings import above, either, required, setting


@dataclass(frozen=True, kw_only=True)
class GrowConfig(SeededConfig):
    """A larger policy that computes the same as a smaller one."""

    policy: str = required("The trained policy to grow: a model folder, or a name on the hub.")
    width: int = setting(
        1,
        "Factor by which the residual stream, the heads and the MLP become wider.",
        minimum=1,
        maximum=16,
    )
    intermediate: int = setting(
        1, "Factor by which the MLP becomes wider, in addition to `width`.", minimum=1, maximum=16
    )
    layers: int = setting(
        0, "Number of layers of the result; 0 adds none.", minimum=0, maximum=MOST_LAYERS
    )
    noise: float = setting(
        0.0,
        "Deviation of the noise on new units, relative to their weights'. 0 computes exactly the "
        "same, but copied units stay copies during training.",
        minimum=0.0,
        maximum=1.0,
        requires=either(above("width", 1), above("intermediate", 1)),
    )

    def check(self) -> None:
        if self.width == self.intermediate == 1 and self.layers == 0:
            raise ValueError("nothing grows; set width, intermediate or layers")
