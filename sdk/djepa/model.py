"""The masked model of D-JEPA: context encoder, predictor, one input projection and one denoising head per stream.

    visible tokens  -> context encoder -> their features
    features + mask tokens at hidden places -> predictor -> z, one context vector per token
    z of a hidden token -> denoising head -> the token

A *stream* is a sequence of tokens of one kind with its own width. All streams of a model, and the condition tokens before
them, form one sequence that the shared trunk attends over:

    [ condition tokens | stream 1 | stream 2 | ... ]

References:
    D. Chen et al. Denoising with a Joint-Embedding Predictive Architecture. arXiv 2410.03755.
    T. Li et al. Autoregressive Image Generation without Vector Quantization. arXiv 2406.11838 (MAR).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from djepa.conditioner import Conditioner, ConditionTokens
from djepa.errors import UsageError
from djepa.heads.head import DenoisingHead
from djepa.nn.positions import RotaryPosition, Rotation
from djepa.nn.transformer import Transformer, layer_norm
from djepa.sequence import Sequence, rotated
from djepa.tokens import TokenBatch

Batch = Mapping[str, TokenBatch]
Masks = Mapping[str, Bool[Tensor, "b n"]]  # on the CPU, so that their sizes are known without asking the device


class Stream(nn.Module):
    """Where one kind of tokens enters and leaves the trunk.

    Args:
        channels: of a token.
        width, predictor_width: of the trunk.
        axes: where the stream's coordinates belong among the trunk's axes.
        head: the stream's denoising head.
        num_tokens: of the trained layout, for learned positions; None when positions are rotary.
        output_position: add a learned vector per token to the context vectors (MAR).
    """

    def __init__(
        self, channels: int, width: int, predictor_width: int, axes: tuple[int, ...], head: DenoisingHead,
        num_tokens: int | None, output_position: bool = False,
    ) -> None:
        super().__init__()
        self.axes, self.num_tokens = axes, num_tokens
        self.input_proj = nn.Linear(channels, width)
        nn.init.xavier_uniform_(self.input_proj.weight)
        nn.init.zeros_(self.input_proj.bias)
        self.mask_token = nn.Parameter(nn.init.normal_(torch.empty(1, predictor_width), std=0.02))
        self.encoder_position = self._table(num_tokens, width)
        self.predictor_position = self._table(num_tokens, predictor_width)
        self.output_position = self._table(num_tokens if output_position else None, predictor_width)
        self.head = head

    @staticmethod
    def _table(rows: int | None, width: int) -> nn.Parameter | None:
        return None if rows is None else nn.Parameter(nn.init.normal_(torch.empty(rows, width), std=0.02))

    def embed(self, tokens: TokenBatch) -> Float[Tensor, "b n d"]:
        """Tokens as the encoder reads them, before its first norm."""
        x = self.input_proj(tokens.values)
        if self.encoder_position is None:
            return x
        if x.shape[1] != self.num_tokens:
            raise UsageError(f"This model has learned positions for exactly {self.num_tokens} tokens and was given "
                             f"{x.shape[1]}; other sizes need a model trained with rotary positions.")
        return x + self.encoder_position


class Encoder(nn.Module):
    """The context encoder (and, with averaged weights, the target encoder)."""

    def __init__(self, width: int, transformer: Transformer) -> None:
        super().__init__()
        self.norm_in = layer_norm(width)
        self.transformer = transformer


class Predictor(nn.Module):
    """Fills the hidden places.

    Args:
        num_condition_positions: learned positions for so many condition tokens (MAR); 0 for none.
    """

    def __init__(self, width: int, predictor_width: int, transformer: Transformer, num_condition_positions: int = 0) -> None:
        super().__init__()
        self.input_proj = nn.Linear(width, predictor_width)
        nn.init.xavier_uniform_(self.input_proj.weight)
        nn.init.zeros_(self.input_proj.bias)
        rows = num_condition_positions
        self.condition_position = nn.Parameter(nn.init.normal_(torch.empty(rows, predictor_width), std=0.02)) if rows else None
        self.transformer = transformer


class FeatureHead(nn.Module):
    """Predicts the target encoder's features from context vectors; used in training only."""

    def __init__(self, predictor_width: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(predictor_width, 4 * predictor_width)
        self.norm = layer_norm(4 * predictor_width)
        self.fc2 = nn.Linear(4 * predictor_width, width)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Float[Tensor, "m w"]) -> Float[Tensor, "m d"]:
        return self.fc2(self.norm(F.gelu(self.fc1(z))))


class MaskedModel(nn.Module):
    """Context encoder, predictor, and what each stream and condition brings.

    Args:
        streams: by name.
        conditioners: by name; without any, learned start tokens are what the encoder reads when all is hidden.
        encoder, predictor: the trunk.
        rotary: rotary positions over the trunk's axes, for heads of the encoder; None for learned positions.
        feature_head: for the JEPA loss; None in a model that only generates, or in MAR.
        predictor_rotary: the same positions for heads of the predictor, which may be of another width.
        causal_axis: which of the trunk's axes attention is causal along; None: every token attends to all others. Tokens then
            attend to tokens whose coordinate there is not larger than theirs. Condition tokens, and tokens of a stream that
            lacks the axis, come before all coordinates: everything attends to them, and they to each other only, or else
            what they know would tell early tokens of later ones.
    """

    def __init__(
        self, streams: Mapping[str, Stream], conditioners: Mapping[str, Conditioner], encoder: Encoder, predictor: Predictor,
        rotary: RotaryPosition | None = None, feature_head: FeatureHead | None = None,
        predictor_rotary: RotaryPosition | None = None, causal_axis: int | None = None,
    ) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(streams)
        self.conditioners = nn.ModuleDict(conditioners)
        self.encoder, self.predictor = encoder, predictor
        self.rotary, self.feature_head, self.predictor_rotary = rotary, feature_head, predictor_rotary
        self.causal_axis = causal_axis
        width = encoder.norm_in.normalized_shape[0]
        self.start = None if conditioners else nn.Parameter(nn.init.normal_(torch.empty(1, width), std=0.02))

    def stream(self, name: str) -> Stream:
        """A stream by name."""
        stream = self.streams[name]
        assert isinstance(stream, Stream)
        return stream

    def condition(self, prepared: Mapping[str, Tensor], batch_size: int) -> ConditionTokens:
        """Condition tokens of a batch: every conditioner's, side by side.

        Args:
            prepared: what each conditioner's `prepare` returned.
            batch_size: b; needed when the model has no conditions.
        """
        if self.start is not None:
            return ConditionTokens(self.start.expand(batch_size, 1, -1), torch.ones(batch_size, 1, dtype=torch.bool))
        parts = [conditioner(prepared[name]) for name, conditioner in self.conditioners.items()]
        return ConditionTokens(torch.cat([part.values for part in parts], 1), torch.cat([part.valid for part in parts], 1))

    def sequence(self, batch: Batch, condition: ConditionTokens) -> Sequence:
        """Lay a batch out for the trunk."""
        columns, start = {}, condition.values.shape[1]
        for name in self.streams:
            columns[name] = slice(start, start + batch[name].values.shape[1])
            start = columns[name].stop
        valid = torch.cat([condition.valid, *(batch[name].valid for name in self.streams)], dim=1)
        return Sequence(condition, columns, valid, *self._rotations(batch, columns, condition),
                        self._levels(batch, columns, condition))

    def _rotations(
        self, batch: Batch, columns: Mapping[str, slice], condition: ConditionTokens
    ) -> tuple[Rotation | None, Rotation | None]:
        if self.rotary is None or self.predictor_rotary is None:
            return None, None
        rows, num_axes = len(condition.values), self.rotary.frequencies.shape[0]
        length = max(column.stop for column in columns.values())
        coords = condition.values.new_zeros(rows, length, num_axes, dtype=torch.float32)
        for name, column in columns.items():
            coords[:, column, list(self.stream(name).axes)] = batch[name].coords.float()
        return self.rotary(coords), self.predictor_rotary(coords)

    def _levels(
        self, batch: Batch, columns: Mapping[str, slice], condition: ConditionTokens
    ) -> Float[Tensor, "b s"] | None:
        """Coordinates along the causal axis, minus infinity for what has none."""
        if self.causal_axis is None:
            return None
        length = max(column.stop for column in columns.values())
        levels = condition.values.new_full((len(condition.values), length), -torch.inf, dtype=torch.float32)
        for name, column in columns.items():
            axes = self.stream(name).axes
            if self.causal_axis in axes:
                levels[:, column] = batch[name].coords[..., axes.index(self.causal_axis)].float()
        return levels

    def encode(self, batch: Batch, hidden: Masks | None, sequence: Sequence) -> Float[Tensor, "total d"]:
        """Features of condition tokens and visible tokens, sample by sample, end to end.

        Args:
            batch: tokens of every stream.
            hidden: True where a token is hidden; None to see everything, as the target encoder does.
            sequence: the layout of the batch.
        """
        x = torch.cat([sequence.condition.values, *(self.stream(name).embed(batch[name]) for name in self.streams)], dim=1)
        subset = sequence.subset(self._visible(hidden, sequence))
        if subset is not None:
            x = subset.sequences(x)
        x = self.encoder.transformer(
            self.encoder.norm_in(x), subset.packing if subset else None, rotated(sequence.rotation, subset),
            sequence.causal(subset),
        )
        return x.flatten(0, 1)

    @staticmethod
    def _visible(hidden: Masks | None, sequence: Sequence) -> Bool[Tensor, "b s"]:
        visible = torch.ones_like(sequence.valid)
        for name, mask in (hidden or {}).items():
            visible[:, sequence.columns[name]] = ~mask
        return visible

    def predict(self, features: Float[Tensor, "total d"], hidden: Masks, sequence: Sequence) -> Mapping[str, Tensor]:
        """Context vectors z (b, n, w) of all tokens of every stream, from the features of the visible ones."""
        x = self.predictor.input_proj(features)
        rows = len(sequence.valid)
        masks = [self.stream(name).mask_token.expand(column.stop - column.start, -1)
                 for name, column in sequence.columns.items()]
        full = torch.cat([x.new_zeros(sequence.num_conditions, x.shape[1]), *(mask.to(x.dtype) for mask in masks)])
        full = full.expand(rows, -1, -1)
        visible = sequence.subset(self._visible(hidden, sequence))
        full = visible.put(full, x) if visible else x.unflatten(0, (rows, -1))
        full = full + self._predictor_positions(sequence)

        present = sequence.subset(torch.ones_like(sequence.valid))
        packed = present.sequences(full) if present else full
        rotation = rotated(sequence.predictor_rotation, present)
        z = self.predictor.transformer(packed, present.packing if present else None, rotation, sequence.causal(present))
        if present is not None:
            z = present.put(z.new_zeros(full.shape), z.flatten(0, 1))
        return {name: self._output(name, z[:, column]) for name, column in sequence.columns.items()}

    def _predictor_positions(self, sequence: Sequence) -> Tensor | float:
        tables = [self.stream(name).predictor_position for name in self.streams]
        if tables[0] is None:
            return 0.0
        first = self.predictor.condition_position
        if first is None:
            first = tables[0].new_zeros(sequence.num_conditions, tables[0].shape[1])
        if len(first) != sequence.num_conditions:
            raise UsageError(f"This model has learned positions for exactly {len(first)} condition tokens and was given "
                             f"{sequence.num_conditions}; conditions of any length, such as texts, need "
                             f"model.predictor_condition_position=false.")
        return torch.cat([first, *(table for table in tables if table is not None)])

    def _output(self, name: str, z: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        position = self.stream(name).output_position
        return z if position is None else z + position

    def context_vectors(self, batch: Batch, hidden: Masks, condition: ConditionTokens) -> Mapping[str, Tensor]:
        """Context vectors z (b, n, w) of every stream's tokens."""
        sequence = self.sequence(batch, condition)
        return self.predict(self.encode(batch, hidden, sequence), hidden, sequence)

    def forward(self, batch: Batch, hidden: Masks, prepared: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`context_vectors` from prepared conditions."""
        rows = len(next(iter(batch.values())))
        return self.context_vectors(batch, hidden, self.condition(prepared, rows))

    @torch.no_grad()
    def target_features(self, batch: Batch, prepared: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, "b n d"]]:
        """Features of every stream's tokens by an encoder that sees all of them: with averaged weights, the target encoder."""
        sequence = self.sequence(batch, self.condition(prepared, len(next(iter(batch.values())))))
        features = self.encode(batch, None, sequence)
        present = sequence.subset(torch.ones_like(sequence.valid))
        shape = sequence.valid.shape
        if present is None:
            full = features.unflatten(0, shape)
        else:
            full = present.put(features.new_zeros(*shape, features.shape[1]), features)
        return {name: full[:, column] for name, column in sequence.columns.items()}
