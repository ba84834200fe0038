"""The conditioner contract: what a sample should be of, as tokens the encoder can attend to.

A conditioner is constructed as `Class(width, **options)`. It turns raw conditions (names, captions) into condition tokens in
two steps: `prepare` reads and checks them on the host, `forward` embeds what was prepared. The *null condition*, learned by
dropping conditions in training, is what guidance steers away from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from djepa.errors import ConditionError, UsageError, suggest


@dataclass(frozen=True)
class ConditionTokens:
    """Condition tokens of a batch.

    Attributes:
        values: (b, k, d).
        valid: on the CPU; False where a sequence is padded (captions of different lengths).
    """

    values: Float[Tensor, "b k d"]
    valid: Bool[Tensor, "b k"]


class Conditioner(nn.Module, ABC):
    """Turns raw conditions into condition tokens."""

    @abstractmethod
    def prepare(self, raw: Sequence[Any]) -> Tensor:
        """Raw conditions, one a sample, as a CPU tensor (b, ...); None stands for the null condition.

        Raises:
            ConditionError: one of them is unknown; the message names the nearest known.
        """

    @abstractmethod
    def forward(self, prepared: Tensor) -> ConditionTokens:
        """Condition tokens of what `prepare` returned."""

    @abstractmethod
    def null(self, prepared: Tensor, drop: Bool[Tensor, "b"]) -> Tensor:
        """`prepared` with the null condition where `drop` is True."""

    def describe(self) -> list[Any] | None:
        """Every raw condition there is, in order, when they are a closed list; else None."""
        return None

    @classmethod
    def fitted(cls, options: Mapping[str, Any], classes: Sequence[str] | None) -> dict[str, Any]:
        """`options` completed by what the dataset says of this condition; unchanged by default.

        A resolved recipe writes out defaults: an option that has its default counts as not given.
        """
        return dict(options)


class ClassConditioner(Conditioner):
    """One of a closed list of names: a learned vector per name, added to `num_tokens` learned vectors [D-JEPA, sec. 3].

    A name is found as it is written; else a whole number is an id; else case and underscores are overlooked; else a name with
    a qualifier, "crane (bird)", may be given without it where that leaves one.

    Args:
        width: of the tokens.
        names: the class names, in the order of their ids; taken from the dataset when not given.
        num_tokens: condition tokens (K).

    Raises:
        UsageError: there are no names, or one of them twice, or not at least one token.
    """

    def __init__(self, width: int, *, names: Sequence[str] = (), num_tokens: int = 64) -> None:
        super().__init__()
        if num_tokens < 1:
            raise UsageError(f"num_tokens={num_tokens}: a class condition needs at least 1 token.")
        if not names or len({str(name) for name in names}) != len(names):
            raise UsageError(f"A class condition needs a list of different names, not {list(names)!r}. A dataset with classes "
                             f"gives them; otherwise set `names` in the recipe.")
        self.names = tuple(str(name) for name in names)
        self._ids = {name: index for index, name in enumerate(self.names)}
        self.embedding = nn.Parameter(torch.empty(len(self.names), width))
        self.null_condition = nn.Parameter(torch.empty(1, width))
        self.tokens = nn.Parameter(torch.zeros(num_tokens, width))
        nn.init.normal_(self.embedding, std=0.02)
        nn.init.normal_(self.null_condition, std=0.02)

    def prepare(self, raw: Sequence[Any]) -> Tensor:
        return torch.tensor([len(self.names) if value is None else self._id(value) for value in raw])

    def _id(self, value: Any) -> int:
        """The id of a name; a whole number that is no name counts as an id itself."""
        name = str(value)
        if name in self._ids and not isinstance(value, bool):
            return self._ids[name]
        if name.isdecimal() and int(name) < len(self.names):
            return int(name)
        near = [] if isinstance(value, bool) else self._meant(name)
        if len(near) == 1:
            return self._ids[near[0]]
        if near:
            raise ConditionError(f"The condition {value!r} could be {' or '.join(map(repr, near))}; say which.")
        raise ConditionError(f"Unknown condition {value!r}. {suggest(name, self.names)}")

    def _meant(self, text: str) -> list[str]:
        """Names that differ from a text in case and spacing only; without any, those that also say which: "crane (bird)"."""
        wanted = _folded(text)
        alike = [name for name in self.names if _folded(name) == wanted]
        return alike or [name for name in self.names if _folded(name.partition(" (")[0]) == wanted]

    def forward(self, prepared: Tensor) -> ConditionTokens:
        rows = torch.cat([self.embedding, self.null_condition])
        vectors = rows[prepared.to(rows.device, non_blocking=True)]
        valid = torch.ones(len(prepared), len(self.tokens), dtype=torch.bool)
        return ConditionTokens(self.tokens + vectors[:, None], valid)

    def null(self, prepared: Tensor, drop: Tensor) -> Tensor:
        return prepared.masked_fill(drop, len(self.names))

    def describe(self) -> list[Any]:
        return list(self.names)

    @classmethod
    def fitted(cls, options: Mapping[str, Any], classes: Sequence[str] | None) -> dict[str, Any]:
        return {**options, "names": options.get("names") or list(classes)} if classes else dict(options)


def _folded(name: str) -> str:
    """A name without what people do not care about: case, and whether words are joined by spaces or underscores."""
    return " ".join(name.casefold().replace("_", " ").split())
