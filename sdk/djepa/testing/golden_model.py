"""A converted MAR or D-JEPA model against the numbers of its reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from djepa.conditioner import ConditionTokens
from djepa.convert.published import CONDITION, STREAM
from djepa.errors import CheckpointError
from djepa.generate import NoiseSource, Sampling, Schedule, generate
from djepa.heads.flow import FlowHead
from djepa.heads.gaussian import GaussianHead
from djepa.heads.head import GuidedNetwork
from djepa.heads.schedule import respaced
from djepa.losses import JEPA_BETA
from djepa.masking import Subset
from djepa.pipeline import Pipeline
from djepa.testing.comparison import Comparison
from djepa.tokens import Sample, TokenBatch

DDPM_GUIDANCE, DDPM_TEMPERATURE = 2.0, 0.9


@dataclass(frozen=True)
class SampleSettings:
    """How one of the recorded samples was generated; `shift` is the flow head's, which ignores the temperature."""

    num_steps: int
    temperature: float
    guidance_scale: float
    guidance_schedule: str = "linear"
    shift: float = 1.0


SAMPLES = {
    "sample_cfg1": SampleSettings(num_steps=5, temperature=0.9, guidance_scale=1.0),
    "sample_cfg3": SampleSettings(num_steps=6, temperature=1.0, guidance_scale=3.0),
    "sample_cfg2c": SampleSettings(num_steps=4, temperature=0.98, guidance_scale=2.0, guidance_schedule="constant", shift=2.0),
}


class ModelComparison:
    """Runs a model on recorded inputs and noise.

    Args:
        pipe: the converted model; its tokenizer takes the recorded latents as they are.
        with_: the recorded tensors.
        num_denoising_steps: evaluations of the head in the recorded samples.
    """

    def __init__(self, pipe: Pipeline, with_: Comparison, num_denoising_steps: int) -> None:
        self.pipe, self.model, self.record = pipe, pipe.model, with_
        self.head, self.num_denoising_steps = pipe.model.stream(STREAM).head, num_denoising_steps
        latents, labels = with_.given("latents"), with_.given("labels")
        modality = pipe.spec.streams[STREAM].modality
        if (wanted := pipe.spec.streams[STREAM].shape) != tuple(latents.shape[1:]):
            raise CheckpointError(f"{with_.place}: the recorded latents have shape {list(latents.shape[1:])}; the model is for "
                                  f"{list(wanted or ())}.")
        tokens = pipe.tokenizers[STREAM].encode_batch([Sample(latent, {}, modality) for latent in latents])
        self.batch: Mapping[str, TokenBatch] = {STREAM: tokens}
        self.hidden = {STREAM: with_.given("mask") > 0.5}
        conditioner: Any = self.model.conditioners[CONDITION]
        prepared = conditioner.prepare(labels.tolist())
        self.prepared = {CONDITION: prepared}
        self.condition = self.model.condition(self.prepared, len(labels))
        null = {CONDITION: conditioner.null(prepared, torch.ones(len(labels), dtype=torch.bool))}
        self.null = self.model.condition(null, len(labels))

    @torch.no_grad()
    def run(self) -> None:
        """Compare everything.

        Raises:
            CheckpointError: a recorded tensor is missing.
        """
        self.record.equal("tokens", self.batch[STREAM].values)
        self.record.equal("encoder_out", self._encoded(self.condition))
        self.record.equal("encoder_out_uncond", self._encoded(self.null))
        z = self.model.context_vectors(self.batch, self.hidden, self.condition)[STREAM]
        self.record.equal("z", z)
        self._network()
        self._denoising_loss(z)
        if self.model.feature_head is not None:
            self._features(z)
        if isinstance(self.head, GaussianHead):
            self._denoising_steps(self.head)
        for name, settings in SAMPLES.items():
            if f"{name}/latents" in self.record.recorded:
                self._generated(name, settings)

    def _encoded(self, condition: ConditionTokens) -> Tensor:
        features = self.model.encode(self.batch, self.hidden, self.model.sequence(self.batch, condition))
        return features.unflatten(0, (len(self.batch[STREAM]), -1))

    def _network(self) -> None:
        network: Any = self.head.network
        given = self.record.given
        self.record.equal("head_out", network(given("head_xt"), given("head_t").float(), network.project(given("head_c"))))

    def _denoising_loss(self, z: Tensor) -> None:
        head = self.head
        assert isinstance(head, FlowHead | GaussianHead)
        times, noise = self.record.given("loss_t"), self.record.given("loss_noise")
        tokens, context = self.batch[STREAM].values.flatten(0, 1), head.network.project(z.flatten(0, 1))
        repeats = len(times) // len(tokens)  # noise levels per token, one after the other for all tokens
        losses = head.loss_at(tokens.repeat(repeats, 1), context.repeat(repeats, 1), times, noise)
        if not isinstance(losses, Tensor):
            self.record.equal("loss_mse_per_token", losses[0])
            self.record.equal("loss_vb_per_token", losses[1])
            losses = losses[0] + losses[1]
        self.record.equal("loss_per_token", losses)
        self.record.equal("loss", losses[self.hidden[STREAM].flatten().repeat(repeats)].mean())

    def _features(self, z: Tensor) -> None:
        assert self.model.feature_head is not None
        predicted, wanted = self.model.feature_head(z), self.record.given("jepa_target")
        self.record.equal("jepa_pred", predicted)
        hidden = self.hidden[STREAM]
        self.record.equal("jepa_loss", F.smooth_l1_loss(predicted[hidden], wanted[hidden], beta=JEPA_BETA))
        self.record.equal("target_encoder_out", self.model.target_features(self.batch, self.prepared)[STREAM])

    def _denoising_steps(self, head: GaussianHead) -> None:
        given, steps = self.record.given, len(self.record.given("ddpm_x"))
        network = GuidedNetwork(head.network, given("head_c"), given("head_c_uncond"), lambda time: DDPM_GUIDANCE)
        made = [head.denoise(network, x, step, steps, noise if step else None, DDPM_TEMPERATURE, None)
                for step, x, noise in zip(reversed(range(steps)), given("ddpm_x"), given("ddpm_noise"), strict=True)]
        self.record.equal("ddpm_timesteps", respaced(steps).times.flip(0))
        self.record.equal_slices("ddpm_next", torch.stack(made))

    def _generated(self, name: str, settings: SampleSettings) -> None:
        temperature = settings.temperature
        if isinstance(self.head, FlowHead):
            self.head.shift, temperature = settings.shift, 1.0
        orders = self.record.given(f"{name}/orders").flip(1)  # recorded the other way round: what stays hidden longest first
        schedule = Schedule.plan(orders, self.batch[STREAM].valid, settings.num_steps)
        sampling = Sampling(settings.num_steps, self.num_denoising_steps, temperature, settings.guidance_scale,
                            settings.guidance_schedule)
        guided = settings.guidance_scale != 1.0
        filled = generate(self.model, self.batch, {STREAM: schedule}, self.condition, self.null if guided else None, sampling,
                          self._recorded_noise(name), {STREAM: None})
        self.record.ignore_empty(f"{name}/step")  # with more steps than tokens some steps reveal nothing and ask for no noise
        samples = self.pipe.tokenizers[STREAM].decode_batch(filled[STREAM])
        self.record.equal(f"{name}/latents", torch.stack([sample.data for sample in samples]))

    def _recorded_noise(self, name: str) -> NoiseSource:
        def source(stream: str, step: int, revealed: Subset, num_tokens: int) -> RecordedNoise:
            return RecordedNoise(self.record, f"{name}/step{step}", len(revealed))

        return source


@dataclass(frozen=True)
class RecordedNoise:
    """The noise of one generation step, as it was recorded."""

    record: Comparison
    place: str
    num_tokens: int

    def normal(self, purpose: str, num: int, width: int) -> Tensor:
        """The recorded numbers."""
        numbers = self.record.given(f"{self.place}/{'init' if purpose == 'start' else 'step'}_noise")
        if tuple(numbers.shape[-2:]) != (self.num_tokens, width):
            raise CheckpointError(f"{self.record.place}: at {self.place} noise was recorded for {list(numbers.shape[-2:])} "
                                  f"numbers; generation reveals {self.num_tokens} tokens of {width} channels there.")
        return numbers if numbers.dim() == 3 else numbers[None]

    def uniform(self, purpose: str, num: int, width: int) -> Tensor:
        """Nothing: generation draws no uniform numbers."""
        raise NotImplementedError(purpose)
