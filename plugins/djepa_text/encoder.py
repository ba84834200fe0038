"""A text encoder at work: frozen, and every text read once as long as its features are remembered.

What it makes of a text is a function of that text alone, number for number, whatever is read along with it and whatever was
read before: a text always goes through the network in a batch of the same shape. Kernels round by the shapes they are given;
with remembered features of a batch that is not repeated, a resumed run would end in other weights than one that was never
stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import CheckpointError
from djepa_text.source import Source, load_network, load_tokenizer
from djepa_text.text import too_long

Text = tuple[int, ...]  # the ids of a text's tokens

MEMORY = 2**28  # bytes of features that are remembered: those of a thousand captions of 80 tokens by T5-base
# Texts in a batch, and what their lengths are rounded up to: on a CPU, where more would not be faster, and elsewhere.
ON_CPU, ELSEWHERE = (1, 1), (32, 16)


class FrozenEncoder:
    """Tokenizer and network of a text encoder, read when they are first needed.

    No module, on purpose: a model's weights do not include it, copies of a model share it, and no optimizer sees it.

    Args:
        source: where it is.
        kind: class of the network in transformers.
        max_tokens: of a text.
        truncate: cut longer texts instead of refusing them.
        precision: to compute in.
    """

    def __init__(
        self, source: Source, kind: str, max_tokens: int, truncate: bool, precision: Literal["float32", "bfloat16"]
    ) -> None:
        self.source, self.kind, self.max_tokens, self.truncate, self.precision = source, kind, max_tokens, truncate, precision
        self._forget()

    def _forget(self) -> None:
        self._tokenizer: Any = None
        self._network: Any = None
        self._remembered: dict[Text, Tensor] = {}  # the latest last
        self._held = 0                             # bytes of all of them

    def __deepcopy__(self, memo: object) -> FrozenEncoder:
        return self

    def __getstate__(self) -> dict[str, Any]:
        """The settings alone: another process reads the rest from the source."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, those that mark its start or end included.

        Raises:
            ConditionError: they are too many.
            CheckpointError: the tokenizer cannot be loaded.
        """
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.source)
        ids = self._tokenizer(text, verbose=False)["input_ids"]
        if len(ids) > self.max_tokens:
            if not self.truncate:
                raise too_long(text, len(ids), self.max_tokens, "tokens")
            ids = self._tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        return ids

    def features(self, texts: Sequence[Text], device: torch.device) -> list[Float[Tensor, "_ e"]]:
        """What the network makes of each token of every text, on the device; nothing to be trained hangs on it.

        Raises:
            CheckpointError: the network cannot be loaded.
        """
        self._move(device)
        different = dict.fromkeys(texts)
        found = {text: self._remembered[text] for text in different if text in self._remembered}
        found |= self._read([text for text in different if text not in found], device)
        self._remember(found)
        return [found[text] for text in texts]

    def _move(self, device: torch.device) -> None:
        if self._network is None:
            self._network = load_network(self.source, self.kind, getattr(torch, self.precision))
        if self._network.device != device:
            self._network.to(device)
            self._remembered, self._held = {}, 0

    def _remember(self, found: dict[Text, Tensor]) -> None:
        for text, features in found.items():
            if self._remembered.pop(text, None) is None:
                self._held += features.nbytes
            self._remembered[text] = features
        while self._held > MEMORY:
            self._held -= self._remembered.pop(next(iter(self._remembered))).nbytes

    def _read(self, texts: Sequence[Text], device: torch.device) -> dict[Text, Tensor]:
        known = self._network.config.vocab_size
        if any(max(text) >= known for text in texts):
            raise CheckpointError(f"The tokenizer of {self.source.name!r} belongs to another encoder: it gives tokens beyond "
                                  f"the {known} of the network.")
        rows, step = ON_CPU if device.type == "cpu" else ELSEWHERE
        alike: dict[int, list[Text]] = {}
        for text in texts:
            alike.setdefault(min(-(-len(text) // step) * step, self.max_tokens), []).append(text)
        found: dict[Text, Tensor] = {}
        for length, group in alike.items():
            for start in range(0, len(group), rows):
                part = group[start : start + rows]
                full = part + part[:1] * (rows - len(part))
                found |= zip(part, self._computed(full, length, device), strict=False)
        return found

    # The first use may be in a preview; what is remembered is needed in training as well.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _computed(self, texts: Sequence[Text], length: int, device: torch.device) -> list[Tensor]:
        ids = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts])
        mask = torch.arange(length) < torch.tensor([len(text) for text in texts])[:, None]
        with torch.autocast(device.type, enabled=False):
            output = self._network(input_ids=ids.to(device), attention_mask=mask.long().to(device))
        # Clones, so that a text that is remembered does not hold on to the whole batch.
        return [features[: len(text)].clone() for features, text in zip(output.last_hidden_state, texts, strict=True)]
