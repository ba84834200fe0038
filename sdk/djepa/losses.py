"""What training minimizes: denoising loss and JEPA loss, on the hidden tokens.

    denoising_i = head.loss(x_i, z_i)                                                         (D-JEPA, Eq. 4; flow: Eq. 7)
    jepa_i      = smooth_l1(feature_head(z_i), target_encoder(all tokens)_i, beta=2)          (D-JEPA, Eq. 3)

The target encoder is the averaged context encoder; it sees every token and the undropped condition. Losses come as sums
over hidden tokens with their count, because a mean is over the *global* batch, which only the caller knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from djepa.masking import Subset
from djepa.model import Batch, MaskedModel, Masks
from djepa.random import Draws

JEPA_BETA = 2.0


@dataclass(frozen=True)
class LossSums:
    """Sums over the hidden tokens of one stream.

    Attributes:
        parts: by name: the head's parts and "jepa".
        count: hidden tokens they were summed over.
    """

    parts: Mapping[str, Float[Tensor, ""]]
    count: int


def training_losses(
    model: MaskedModel,
    target: MaskedModel | None,
    batch: Batch,
    hidden: Masks,
    prepared: Mapping[str, Tensor],
    drop: Bool[Tensor, "b"],
    samples: Int[Tensor, "b"],
    draws: Draws,
) -> dict[str, LossSums]:
    """Loss sums of every stream that has hidden tokens.

    Args:
        model: in training mode.
        target: the averaged model, whose context encoder gives the JEPA target; None leaves the JEPA loss out.
        batch, hidden: tokens, and which of them are hidden.
        prepared: conditions; `drop` says for which samples they are replaced by the null condition.
        samples: ids of the samples, unique over the run: what their randomness is keyed by.
        draws: seed of the head's noise.
    """
    dropped = {name: conditioner.null(prepared[name], drop)  # pyright: ignore[reportCallIssue]
               for name, conditioner in model.conditioners.items()}
    vectors = model(batch, hidden, dropped)
    features = None if target is None else target.target_features(batch, prepared)
    sums = {}
    for name, z in vectors.items():
        masked = hidden[name] & batch[name].valid
        if bool(masked.any()):
            sums[name] = _stream_sums(model, name, z, batch, features, Subset.of(masked, z.device), samples, draws)
    return sums


def _stream_sums(
    model: MaskedModel, name: str, z: Tensor, batch: Batch, features: Mapping[str, Tensor] | None, masked: Subset,
    samples: Tensor, draws: Draws,
) -> LossSums:
    z, x = masked.take(z), masked.take(batch[name].values)
    rows, items = token_places(masked, batch[name].values.shape[1])
    noise = draws.within("head", name).at(samples.to(z.device)[rows], items)
    parts = {part: loss.sum() for part, loss in model.stream(name).head.loss(x, z, noise).items()}
    if features is not None:
        assert model.feature_head is not None
        predicted, wanted = model.feature_head(z).float(), masked.take(features[name]).float()
        parts["jepa"] = F.smooth_l1_loss(predicted, wanted, beta=JEPA_BETA, reduction="none").mean(dim=1).sum()
    return LossSums(parts, len(masked))


def token_places(subset: Subset, num_tokens: int) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
    """Row and position of every token of a subset."""
    return subset.index // num_tokens, subset.index % num_tokens
