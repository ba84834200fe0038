"""What all readers of text share: what a text is, and how the texts of a batch are numbered.

A text is Unicode in composed form (NFC) without white space around it, so that texts that look alike are alike.
"""

from __future__ import annotations

import unicodedata
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from djepa.conditioner import Conditioner
from djepa.errors import ConditionError

NULL, PAD = -1, -2
SHOWN = 40  # characters of a text in a message


class TextConditioner(Conditioner):
    """Texts of any length as condition tokens, prepared as rows of numbers (b, k) that are as long as the longest text.

    A text is its numbers and then PAD; the null condition is NULL and then PAD.
    """

    @abstractmethod
    def numbers(self, text: str) -> list[int]:
        """A text as numbers: at least one, and none of them negative.

        Raises:
            ConditionError: it is too long.
        """

    def prepare(self, raw: Sequence[Any]) -> Int[Tensor, "b k"]:
        rows = [torch.tensor([NULL] if text is None else self.numbers(cleaned(text))) for text in raw]
        return pad_sequence(rows, batch_first=True, padding_value=PAD)

    def null(self, prepared: Int[Tensor, "b k"], drop: Bool[Tensor, "b"]) -> Int[Tensor, "b k"]:
        null = torch.full_like(prepared, PAD)
        null[:, 0] = NULL
        return torch.where(drop[:, None], null, prepared)


def cleaned(text: object) -> str:
    """A text as it is read.

    Raises:
        ConditionError: it is something else than a text, empty, or not Unicode.
    """
    if not isinstance(text, str):
        raise ConditionError(f"This condition is a text, such as 'a dog'; {text!r} is none. For no condition give None.")
    composed = unicodedata.normalize("NFC", text).strip()
    if not composed:
        raise ConditionError(f"The text {text!r} is empty. For no condition leave it out, or give None.")
    try:
        composed.encode()
    except UnicodeEncodeError as error:
        raise ConditionError(f"The text {shortened(text)} is no Unicode: it has half a character at place "
                             f"{error.start}.") from None
    return composed


def shortened(text: str) -> str:
    """A text for a message, in quotes."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")


def too_long(text: str, length: int, limit: int, unit: str) -> ConditionError:
    """The error about a text of more than so many bytes or tokens."""
    return ConditionError(f"The text {shortened(text)} has {length} {unit}; this model reads up to {limit}. Shorten it, or "
                          f"train a model with a larger max_{unit} or with truncate=true.")
