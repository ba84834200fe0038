"""The pipeline: what a user holds.

    pipe = djepa.Pipeline.from_pretrained("image/digits")
    samples = pipe.generate([3, 7], num_samples=8, seed=0)
    samples.grid("all.png")

Four ways to ask: generate from nothing, inpaint a part, extend in time, interpolate between two ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch

from djepa import __version__
from djepa.canvas import Canvas, Mask, make_canvas
from djepa.card import model_card
from djepa.continuation import between, continuation, required_time_axis
from djepa.device import Precision, fitting_batch_size, resolve_device, resolve_precision
from djepa.errors import UsageError, suggest
from djepa.extent import asked_shapes
from djepa.filling import Filled, Filler, OnFilled
from djepa.locate import locate_model
from djepa.model import MaskedModel
from djepa.recipe.schema import GenerateSpec, ModelSpec
from djepa.request import Settings, Wanted, is_whole, lay_out, settings_from
from djepa.storage import generating, load_model, save_model
from djepa.tokenizer import Tokenizer
from djepa.tokens import Sample, Samples, TokenBatch
from djepa.windows import Window, whole


@dataclass(frozen=True)
class Progress:
    """What `on_step` is told after every generation step.

    Attributes:
        step, num_steps: of the current chunk.
        chunk, num_chunks: long generations run in chunks that fit memory.
        preview: decodes the chunk as it is so far; costs time only when called.
    """

    step: int
    num_steps: int
    chunk: int
    num_chunks: int
    preview: Callable[[], Samples]


OnProgress = Callable[[Progress], bool | None]


class Pipeline:
    """A model with its tokenizers, on a device, ready to generate.

    Args:
        model: in evaluation mode.
        spec: complete specification of the model.
        tokenizers: by stream.
        name: what generated samples say they come from.
        device: "auto" takes a GPU where there is one.
        dtype: "auto" is bfloat16 on GPUs that have it, else float32. Norms, softmax, schedules and weights stay float32.
    """

    def __init__(
        self, model: MaskedModel, spec: ModelSpec, tokenizers: Mapping[str, Tokenizer], *, name: str = "",
        device: str | torch.device = "auto", dtype: Precision = "auto", about: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.dtype = resolve_precision(dtype, self.device)
        self.model = model.to(self.device).eval()
        self.tokenizers = {key: tokenizer.to(self.device) for key, tokenizer in tokenizers.items()}
        self.spec, self.name, self.about = spec, name, dict(about or {})
        self._filler = Filler(self.model, self.tokenizers, self.device, self.dtype)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str | torch.device = "auto", dtype: Precision = "auto", revision: str | None = None
    ) -> Pipeline:
        """Load a shipped model ("image/digits"), a model or run folder, or a Hub repository ("owner/name").

        Raises:
            CheckpointError: there is no such model, or it is damaged, or its plugins are missing.
            UsageError: the device or precision is not to be had here.
        """
        resolve_precision(dtype, resolve_device(device))
        model, spec, tokenizers, about = load_model(locate_model(name, revision))
        return cls(model, spec, tokenizers, name=str(name), device=device, dtype=dtype, about=about)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
        """Write a model folder: config.json, model.safetensors and a model card; without what only training needs.

        Args:
            dtype: what weights are stored in (torch.float16 halves the file).

        Raises:
            UsageError: the folder holds other things than a model.
            StorageError: the disk refused; nothing is left half-written.
        """
        return self._save(Path(folder), dtype, self.name)

    def _save(self, folder: Path, dtype: torch.dtype, name: str) -> Path:
        tensors, spec = generating(self.model, self.spec)
        stored = {key: tensor.to("cpu", dtype) for key, tensor in tensors.items()}
        return save_model(folder, spec, stored, self.tokenizers, about=self.about, card=model_card(name, self.spec, self.about))

    def push_to_hub(self, repository: str, *, private: bool = False, commit_message: str = "Upload model") -> str:
        """Save to a Hugging Face Hub repository ("owner/name") and return its address. Needs `hf auth login` once."""
        from tempfile import TemporaryDirectory

        from huggingface_hub import HfApi

        api = HfApi()
        url = api.create_repo(repository, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            saved = self._save(Path(folder) / "model", torch.float32, repository)
            api.upload_folder(repo_id=repository, folder_path=saved, commit_message=commit_message)
        return str(url)

    def conditions(self) -> dict[str, list[Any] | None]:
        """The conditions of the model, each with all its values when they are a closed list."""
        return {name: conditioner.describe() for name, conditioner in self._filler.conditioners().items()}

    def generate(
        self,
        conditions: Any = None,
        *,
        num_samples: int = 1,
        seed: int | Sequence[int] = 0,
        seconds: float | None = None,
        size: int | Sequence[int] | None = None,
        given: Mapping[str, Sample] | None = None,
        masks: Mapping[str, Mask] | None = None,
        stream: str | None = None,
        batch_size: int | None = None,
        on_step: OnProgress | None = None,
        **settings: Unpack[Settings],
    ) -> Samples:
        """Generate samples; settings left out are the model's own.

        Args:
            conditions: one condition or a list; each a value (3, "dog"), a mapping by condition name, or None.
            num_samples: per condition.
            seed: sample j of a condition has seed `seed + j`, and gives the same sample whatever else is in the call. A list
                has one for each sample.
            seconds: length, where the model makes something that lasts; other than the trained one with rotary positions only.
            size: in pixels, one number or (height, width); likewise.
            given: samples of other streams to generate along with, or of this one together with `masks`.
            masks: per given stream, what is to be generated anew, as in `inpaint`; all else comes back exactly.
            stream: which stream to return, where several are generated.
            batch_size: samples at a time; by default as many as fit memory.
            on_step: called with a `Progress` after every step; returning False cancels.
            settings: see `djepa.request.Settings`.

        Raises:
            ConditionError: the model does not know a condition.
            UsageError: a setting is out of range.
            GenerationCancelled: `on_step` returned False.
        """
        shapes = asked_shapes(self.spec, self.tokenizers, seconds, size)
        canvas = make_canvas(self.spec, self.tokenizers, given or {}, masks or {}, shapes)
        wanted = lay_out(conditions, list(self.spec.conditions), num_samples, seed)
        return self._run(wanted, canvas, whole(canvas), stream, batch_size, on_step, settings)

    def inpaint(
        self, sample: Sample, mask: Mask, condition: Any = None, *, num_samples: int = 1, seed: int = 0,
        stream: str | None = None, batch_size: int | None = None, on_step: OnProgress | None = None,
        **settings: Unpack[Settings],
    ) -> Samples:
        """Generate the masked part of a sample anew; everything else stays exactly as it is.

        Args:
            sample: to be completed.
            mask: True where to generate, in the shape of the sample's axes (without channels), or a box: from and to along some
                axes in their units, ``{"t": (0.5, 1.0)}`` or, of a sound in mel bins, ``{"mel": (20, 40)}``. A token is
                generated anew when any part of it is masked. Along an axis that only tokens have, nothing of the sample itself
                can be kept exactly.
            condition: what the sample is of.
            num_samples, seed, batch_size, on_step, settings: as in `generate`.
            stream: which the sample belongs to; the model's first by default.

        Raises:
            LayoutError: the sample or the mask has another shape.
            UsageError: the box names an axis that there is not.
        """
        name = self._stream(stream)
        mask = mask if isinstance(mask, Mapping) else torch.as_tensor(mask)
        return self.generate(condition, num_samples=num_samples, seed=seed, given={name: sample}, masks={name: mask},
                             stream=name, batch_size=batch_size, on_step=on_step, **settings)

    def extend(
        self, sample: Sample, seconds: float, condition: Any = None, *, context: float | None = None, num_samples: int = 1,
        seed: int = 0, stream: str | None = None, batch_size: int | None = None, on_step: OnProgress | None = None,
        **settings: Unpack[Settings],
    ) -> Samples:
        """Let a sample go on: the sample itself, exactly, and `seconds` more.

        What is longer than the model was trained on is made window by window, each looking back on the one before.

        Args:
            sample: a clip or sound of any length that holds a token.
            seconds: how much longer it shall be.
            condition: what the sample is of.
            context: seconds that each window looks back on; by default half of what the model was trained on. More is steadier
                and takes longer.
            num_samples, seed, batch_size, on_step, settings: as in `generate`.
            stream: which the sample belongs to; the model's first by default. Other streams are generated along with it.

        Raises:
            UsageError: the stream does not go on in time.
            LayoutError: the sample does not fit the model, or is too short.
        """
        name = self._stream(stream)
        plan = continuation(self.spec, self.tokenizers, name, sample, seconds, context)
        wanted = lay_out(condition, list(self.spec.conditions), num_samples, seed)
        made = self._run(wanted, plan.canvas, plan.windows, name, batch_size, on_step, settings)
        return Samples(plan.cropped(item) for item in made)

    def interpolate(
        self, first: Sample, last: Sample, condition: Any = None, *, seconds: float | None = None, num_samples: int = 1,
        seed: int = 0, stream: str | None = None, batch_size: int | None = None, on_step: OnProgress | None = None,
        **settings: Unpack[Settings],
    ) -> Samples:
        """Generate what lies between two ends, which stay exactly as they are.

        Args:
            first, last: clips or stills of one size; an end shorter than a token is held still for as long as that takes.
            condition: what the sample is of.
            seconds: of the whole, ends included; by default what the model was trained on.
            num_samples, seed, batch_size, on_step, settings: as in `generate`.
            stream: which the sample belongs to; the model's first by default.

        Raises:
            UsageError: the stream does not go on in time.
            LayoutError: the ends do not fit the model or each other, or nothing lies between them.
        """
        name = self._stream(stream)
        axis = required_time_axis(name, self.tokenizers[name])
        shape = asked_shapes(self.spec, self.tokenizers, seconds, None)[name]
        stills = first.data.ndim == len(shape) - 1
        sizes = list(first.data.shape)
        shape = (sizes[0], *sizes[1 : axis + 1], shape[axis + 1], *sizes[axis + 1 + (not stills) :])
        sample, mask = between(self.tokenizers[name], first, last, shape, axis)
        return self.inpaint(sample, mask, condition, num_samples=num_samples, seed=seed, stream=name, batch_size=batch_size,
                            on_step=on_step, **settings)

    def _stream(self, name: str | None) -> str:
        if name is not None and name not in self.spec.streams:
            raise UsageError(f"This model has no stream {name!r}. {suggest(name, self.spec.streams)}")
        return name or next(iter(self.spec.streams))

    def _returned(self, stream: str | None, canvas: Canvas) -> str:
        generated = canvas.generated()
        if not generated and stream is None:
            raise UsageError("Every stream is given whole, so nothing is left to generate; masks=... says what to make anew.")
        names = [stream] if stream else generated
        if len(names) != 1 or names[0] not in self.spec.streams:
            raise UsageError(f"This call generates the streams {', '.join(generated) or '(none)'}; say which to return with "
                             f"stream=..., one of {', '.join(self.spec.streams)}." + (f" Got {stream!r}." if stream else ""))
        return names[0]

    def _run(
        self, wanted: Sequence[Wanted], canvas: Canvas, windows: Sequence[Window], stream: str | None,
        batch_size: int | None, on_step: OnProgress | None, given: Settings,
    ) -> Samples:
        """Fill the canvas for every sample wanted, in chunks that fit memory."""
        settings = settings_from(self.spec.generate, given)
        if batch_size is not None and (not is_whole(batch_size) or batch_size < 1):
            raise UsageError(f"batch_size={batch_size!r}: expected a whole number, at least 1.")
        prepared = {name: conditioner.prepare([item.condition[name] for item in wanted])
                    for name, conditioner in self._filler.conditioners().items()}
        name = self._returned(stream, canvas)
        size = int(batch_size or fitting_batch_size(self.model, canvas, self.device))
        chunks = [slice(start, start + size) for start in range(0, len(wanted), size)]
        samples = Samples()
        for number, chunk in enumerate(chunks, 1):
            rows = wanted[chunk]

            def decoded(tokens: Mapping[str, TokenBatch], rows: Sequence[Wanted] = rows) -> Samples:
                return self._decode(name, tokens[name], canvas, rows, settings)

            report = on_step and _reporter(on_step, decoded, number, len(chunks))
            parts = {key: tensor[chunk] for key, tensor in prepared.items()}
            samples += decoded(self._filler.fill(canvas, windows, [row.seed for row in rows], parts, settings, report))
        return samples

    def _decode(
        self, name: str, tokens: TokenBatch, canvas: Canvas, rows: Sequence[Wanted], settings: GenerateSpec
    ) -> Samples:
        start, tokenizer = canvas.streams[name], self.tokenizers[name]
        on_cpu = tokens.with_values(tokens.values.float().cpu()).to("cpu")
        if start.original is None or start.keep is None:
            samples = Samples(tokenizer.decode_batch(on_cpu))
        else:
            original, keep = start.original, start.keep
            samples = Samples(tokenizer.restore(item, original, keep) for item in on_cpu)
        for sample, row in zip(samples, rows, strict=True):
            conditions = {key: value for key, value in row.condition.items() if value is not None}
            sample.modality = self.spec.streams[name].modality
            sample.meta |= {"model": self.name, "condition": conditions, "seed": row.seed,
                            "settings": settings.model_dump(mode="json"), "djepa": __version__}
        return samples


def _reporter(
    on_step: OnProgress, decoded: Callable[[Mapping[str, TokenBatch]], Samples], chunk: int, num_chunks: int
) -> OnFilled:
    def report(filled: Filled) -> bool | None:
        return on_step(Progress(filled.step, filled.num_steps, chunk, num_chunks, lambda: decoded(filled.tokens())))

    return report
