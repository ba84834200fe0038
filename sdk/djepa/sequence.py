"""How the tokens of all streams and the condition tokens lie side by side in the trunk.

    [ condition tokens | stream 1 | stream 2 | ... ]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from djepa.conditioner import ConditionTokens
from djepa.masking import Subset
from djepa.nn.attention import BlockCausal
from djepa.nn.positions import Rotation


@dataclass(frozen=True)
class Sequence:
    """How a batch lies in the trunk: made once, used by encoder and predictor.

    Attributes:
        condition: the condition tokens.
        columns: where each stream's tokens are.
        valid: on the CPU; False in padding.
        rotation, predictor_rotation: of every column, in encoder and predictor; None when positions are learned.
        levels: of every column: it attends to columns of its level and below; None when all attend to all.
    """

    condition: ConditionTokens
    columns: Mapping[str, slice]
    valid: Bool[Tensor, "b s"]
    rotation: Rotation | None
    predictor_rotation: Rotation | None
    levels: Float[Tensor, "b s"] | None = None

    @property
    def num_conditions(self) -> int:
        """Condition tokens before the first stream."""
        return self.condition.values.shape[1]

    def subset(self, selected: Bool[Tensor, "b s"]) -> Subset | None:
        """The columns to attend over; None when it is all of them, so that nothing has to be gathered."""
        selected = selected & self.valid
        return None if bool(selected.all()) else Subset.of(selected, self.condition.values.device)

    def causal(self, subset: Subset | None) -> BlockCausal | None:
        """Which columns of a subset attend to which; None when all attend to all."""
        if self.levels is None:
            return None
        if subset is None:
            return BlockCausal.of(self.levels)
        return BlockCausal.of(subset.sequences(self.levels), subset.packing)


def rotated(rotation: Rotation | None, subset: Subset | None) -> Rotation | None:
    """The rotation of the columns of a subset."""
    if rotation is None or subset is None:
        return rotation
    return Rotation(subset.sequences(rotation.cos), subset.sequences(rotation.sin))
