"""The pipeline: what a user holds.

    pipe = djepa.Pipeline.from_pretrained("image/digits")
    samples = pipe.generate([3, 7], num_samples=8, seed=0)
    samples.grid("all.png")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from djepa import __version__
from djepa.canvas import Canvas, composite, make_canvas
from djepa.card import model_card
from djepa.conditioner import Conditioner, ConditionTokens
from djepa.device import Precision, fitting_batch_size, resolve_device, resolve_precision
from djepa.errors import UsageError
from djepa.generate import Sampling, Schedule, Step, generate, keyed_noise
from djepa.locate import locate_model
from djepa.model import MaskedModel
from djepa.random import Draws
from djepa.recipe.schema import GenerateSpec, ModelSpec
from djepa.request import Wanted, is_whole, lay_out, settings_from
from djepa.storage import generating, load_model, save_model
from djepa.tokenizer import Tokenizer
from djepa.tokens import Sample, Samples, TokenBatch


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
        return {name: conditioner.describe() for name, conditioner in self._conditioners().items()}

    def generate(
        self,
        conditions: Any = None,
        *,
        num_samples: int = 1,
        seed: int = 0,
        num_steps: int | None = None,
        num_denoising_steps: int | None = None,
        temperature: float | None = None,
        guidance_scale: float | None = None,
        guidance_schedule: Literal["linear", "constant", "interval"] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        order: str | Mapping[str, Any] | None = None,
        clamp: bool | None = None,
        given: Mapping[str, Sample] | None = None,
        masks: Mapping[str, Bool[Tensor, "..."]] | None = None,
        stream: str | None = None,
        batch_size: int | None = None,
        on_step: OnProgress | None = None,
    ) -> Samples:
        """Generate samples; settings left out are the model's own.

        Args:
            conditions: one condition or a list; each a value (3, "dog"), a mapping by condition name, or None.
            num_samples: per condition.
            seed: sample j of a condition has seed `seed + j`, and gives the same sample whatever else is in the call.
            num_steps: generation steps; num_denoising_steps: evaluations of the head in each of them.
            temperature: how much noise the head adds; 1 as trained.
            guidance_scale: 1 is off; with the linear schedule the value at the end.
            guidance_schedule: "linear", "constant", or "interval" of the head's time.
            order: a generation order: its name, or a mapping with its options.
            clamp: keep estimates of clean tokens in the tokenizer's range.
            given: samples of other streams to generate along with, or of this one together with `masks`.
            masks: per given stream, True where it is to be generated anew.
            stream: which stream to return, where several are generated.
            batch_size: samples at a time; by default as many as fit memory.
            on_step: called with a `Progress` after every step; returning False cancels.

        Raises:
            ConditionError: the model does not know a condition.
            UsageError: a setting is out of range.
            GenerationCancelled: `on_step` returned False.
        """
        settings = settings_from(self.spec.generate, {
            "num_steps": num_steps, "num_denoising_steps": num_denoising_steps, "temperature": temperature,
            "guidance_scale": guidance_scale, "guidance_schedule": guidance_schedule,
            "guidance_interval": guidance_interval, "order": order, "clamp": clamp,
        })
        if batch_size is not None and (not is_whole(batch_size) or batch_size < 1):
            raise UsageError(f"batch_size={batch_size!r}: expected a whole number, at least 1.")
        wanted = lay_out(conditions, list(self.spec.conditions), num_samples, seed)
        prepared = {name: conditioner.prepare([item.condition[name] for item in wanted])
                    for name, conditioner in self._conditioners().items()}
        canvas = make_canvas(self.spec, self.tokenizers, given or {}, masks or {})
        name = self._returned_stream(stream, canvas)
        size = int(batch_size or fitting_batch_size(self.model, canvas, self.device))
        samples = Samples()
        chunks = [range(start, min(start + size, len(wanted))) for start in range(0, len(wanted), size)]
        for number, chunk in enumerate(chunks):
            rows = [wanted[index] for index in chunk]
            parts = {key: tensor[chunk.start : chunk.stop] for key, tensor in prepared.items()}
            report = on_step and self._reporter(on_step, name, rows, settings, number + 1, len(chunks))
            filled = self._generate_chunk(rows, parts, canvas, settings, report)
            samples += self._decode(name, filled[name], rows, settings)
        return samples

    def inpaint(
        self, sample: Sample, mask: Bool[Tensor, "..."], condition: Any = None, *, num_samples: int = 1, seed: int = 0,
        stream: str | None = None, on_step: OnProgress | None = None,
    ) -> Samples:
        """Generate the masked part of a sample anew; everything else stays exactly as it is.

        Args:
            sample: to be completed.
            mask: True where to generate, in the shape of the sample's axes (without channels). A token is generated anew
                when any part of it is masked.
            condition: what the sample is of.
        """
        name = stream or next(iter(self.spec.streams))
        mask = torch.as_tensor(mask)
        samples = self.generate(condition, num_samples=num_samples, seed=seed, given={name: sample}, masks={name: mask},
                                stream=name, on_step=on_step)
        return Samples(composite(sample, item, mask) for item in samples)

    def _conditioners(self) -> dict[str, Conditioner]:
        return {name: module for name, module in self.model.conditioners.items() if isinstance(module, Conditioner)}

    def _returned_stream(self, stream: str | None, canvas: Canvas) -> str:
        generated = [name for name, unknown in canvas.unknown.items() if bool(unknown.any())]
        if not generated and stream is None:
            raise UsageError("Every stream is given whole, so nothing is left to generate; masks=... says what to make anew.")
        names = [stream] if stream else generated
        if len(names) != 1 or names[0] not in self.spec.streams:
            raise UsageError(f"This call generates the streams {', '.join(generated) or '(none)'}; say which to return with "
                             f"stream=..., one of {', '.join(self.spec.streams)}." + (f" Got {stream!r}." if stream else ""))
        return names[0]

    @torch.inference_mode()
    def _generate_chunk(
        self, rows: Sequence[Wanted], prepared: Mapping[str, Tensor], canvas: Canvas, settings: GenerateSpec,
        on_step: Callable[[Step], bool | None] | None,
    ) -> dict[str, TokenBatch]:
        seeds = torch.tensor([row.seed for row in rows])
        batch, unknown = canvas.repeated(len(rows), self.device)
        order = settings.order.build()
        schedules = {}
        for name, tokens in canvas.tokens.items():
            axes = tuple(axis.name for axis in self.tokenizers[name].spec.axes)
            coords = tokens.coords.expand(len(rows), -1, -1)
            permutations = order.permutations(Draws(0, "generation order", name), seeds, coords, axes)
            schedules[name] = Schedule.plan(permutations, unknown[name], settings.num_steps)
        bounds = {name: self._bounds(name, settings.clamp) for name in self.spec.streams}
        sampling = Sampling(settings.num_steps, settings.num_denoising_steps, settings.temperature, settings.guidance_scale,
                            settings.guidance_schedule, settings.guidance_interval)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            condition, null = self._condition_tokens(prepared, len(rows), settings)
            return generate(self.model, batch, schedules, condition, null, sampling, keyed_noise(seeds, self.device), bounds,
                            on_step)

    def _condition_tokens(
        self, prepared: Mapping[str, Tensor], rows: int, settings: GenerateSpec
    ) -> tuple[ConditionTokens, ConditionTokens | None]:
        condition = self.model.condition(prepared, rows)
        if settings.guidance_scale == 1.0 or not prepared:
            return condition, None
        drop = torch.ones(rows, dtype=torch.bool)
        null = {name: conditioner.null(prepared[name], drop) for name, conditioner in self._conditioners().items()}
        return condition, self.model.condition(null, rows)

    def _bounds(self, name: str, clamp: bool) -> tuple[Tensor, Tensor] | None:
        bounds = self.tokenizers[name].spec.bounds
        return (bounds[0].to(self.device), bounds[1].to(self.device)) if clamp and bounds is not None else None

    def _reporter(
        self, on_step: OnProgress, name: str, rows: Sequence[Wanted], settings: GenerateSpec, chunk: int, num_chunks: int
    ) -> Callable[[Step], bool | None]:
        def report(step: Step) -> bool | None:
            return on_step(Progress(step.step, step.num_steps, chunk, num_chunks,
                                    lambda: self._decode(name, step.batch[name], rows, settings)))

        return report

    def _decode(self, name: str, tokens: TokenBatch, rows: Sequence[Wanted], settings: GenerateSpec) -> Samples:
        on_cpu = tokens.with_values(tokens.values.float().cpu()).to("cpu")
        samples = Samples(self.tokenizers[name].decode_batch(on_cpu))
        medium = self.spec.streams[name].modality
        for sample, row in zip(samples, rows, strict=True):
            conditions = {key: value for key, value in row.condition.items() if value is not None}
            sample.modality = medium
            sample.meta |= {"model": self.name, "condition": conditions, "seed": row.seed,
                            "settings": settings.model_dump(mode="json"), "djepa": __version__}
        return samples
