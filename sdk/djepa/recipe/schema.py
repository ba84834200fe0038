"""The shape of a recipe: everything a run is, as frozen, validated data.

    Recipe
    ├── data                  a registered dataset and its options
    ├── model                 ModelSpec: also what `config.json` of a saved model holds
    │   ├── streams           by name: a modality, its tokenizer, its denoising head
    │   ├── conditions        by name: a registered conditioner and its options
    │   ├── position          learned, or rotary over any axes
    │   └── generate          the settings the model ships with
    ├── train                 optimizer, lengths, losses, masks
    ├── checkpoint, preview   how often, and how many to keep
    └── evaluate              what generated samples are compared with, by which features and metrics

A node with a `kind` names something registered; its other keys are that component's keyword-only arguments.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from djepa.recipe.component import (
    AttentionNode,
    Component,
    ConditionerNode,
    DatasetNode,
    ExtractorNode,
    HeadNode,
    MetricNode,
    ModalityName,
    OrderNode,
    TokenizerNode,
)
from djepa.recipe.schedules import ConstantSchedule, LearningRateSchedule, WeightDecaySchedule
from djepa.recipe.strict import Strict

SCHEMA_VERSION = 1
STANDARD_METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage")
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
# Dots would break dotted overrides and parameter names alike.
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class StreamSpec(Strict):
    """One stream of tokens around the shared trunk."""

    modality: ModalityName
    tokenizer: TokenizerNode | None = None         # None: the modality's own default
    head: HeadNode = Component(kind="gaussian")
    shape: tuple[PositiveInt, ...] | None = None   # of a sample, channels first; None: that of the first example
    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] | None = None  # along each axis, from and to, of what is trained on
    meta: dict[str, float] = Field(default_factory=dict)  # rates of the axes (fps, sample_rate); from the first example too
    loss_weight: PositiveFloat = 1.0


class LearnedPosition(Strict):
    """A learned vector per token of the trained layout; lengths other than that are impossible."""

    kind: Literal["learned"] = "learned"


class RotaryPosition(Strict):
    """Rotary embedding of physical coordinates, one band of frequencies per axis."""

    kind: Literal["rotary"] = "rotary"
    scale: dict[str, PositiveFloat] = Field(default_factory=dict)  # per axis, in its unit: what turns the fastest pair by 1 rad
    theta: Annotated[float, Field(gt=1.0)] = 100.0  # slowest frequency = fastest / theta


class GenerateSpec(Strict):
    """Settings of generation."""

    num_steps: PositiveInt = 16                    # generation steps (outer)
    num_denoising_steps: PositiveInt = 50          # evaluations of the head per generation step (inner)
    temperature: Annotated[float, Field(ge=0.0)] = 1.0
    guidance_scale: Annotated[float, Field(ge=0.0)] = 1.0  # 1 is off; the linear schedule reaches it at the END
    guidance_schedule: Literal["linear", "constant", "interval"] = "linear"
    guidance_interval: tuple[Probability, Probability] = (0.0, 1.0)  # of head time (0 noise, 1 data), for "interval"
    order: OrderNode = Component(kind="random")
    clamp: bool = True                             # keep the head's clean estimate inside the tokenizer's bounds


class ModelSpec(Strict):
    """A model: what is built, and how it generates unless told otherwise."""

    streams: Annotated[dict[Name, StreamSpec], Field(min_length=1)]
    conditions: dict[Name, ConditionerNode] = Field(default_factory=dict)
    width: PositiveInt = 768
    predictor_width: PositiveInt | None = None     # None: the same
    encoder_depth: PositiveInt = 12
    predictor_depth: PositiveInt = 12
    num_heads: PositiveInt = 12
    predictor_num_heads: PositiveInt | None = None  # None: the same
    mlp_ratio: PositiveFloat = 4.0
    qk_norm: bool = True
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    position: Annotated[LearnedPosition | RotaryPosition, Field(discriminator="kind")] = LearnedPosition()
    causal_axis: str | None = None                 # a token attends to none farther along this axis; None: to all
    predictor_condition_position: bool = False     # MAR: the predictor's condition tokens have positions too
    output_position: bool = False                  # MAR: a third table, added to the context vectors
    feature_head: bool = True                      # D-JEPA: predicts the target encoder's features (training only)
    attention: AttentionNode | None = None         # None: the best one for the device at hand
    generate: GenerateSpec = Field(default_factory=GenerateSpec)

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> ModelSpec:
        pair, why = (2, ", so that every head has an even number of channels to rotate") if self._rotates else (1, "")
        predictor = (self.predictor_width or self.width, self.predictor_num_heads or self.num_heads)
        for prefix, (width, heads) in (("", (self.width, self.num_heads)), ("predictor_", predictor)):
            if width % (pair * heads):
                unit = f"{'2 * ' if pair == 2 else ''}{prefix if self.predictor_num_heads else ''}num_heads"
                raise ValueError(f"{prefix}width={width} must be a multiple of {unit} = {pair * heads}{why}")
        return self

    @property
    def _rotates(self) -> bool:
        return isinstance(self.position, RotaryPosition)

    @model_validator(mode="after")
    def _tables_need_places(self) -> ModelSpec:
        for key in ("predictor_condition_position", "output_position"):
            if getattr(self, key) and not isinstance(self.position, LearnedPosition):
                raise ValueError(f"{key} is a table of learned positions and needs position.kind=learned, not rotary")
        return self


class TruncatedNormalMask(Strict):
    """Mask ratio of the paper: a normal distribution cut to an interval."""

    kind: Literal["truncated-normal"] = "truncated-normal"
    mean: float = 1.0
    std: PositiveFloat = 0.25
    low: Probability = 0.7
    high: Probability = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> TruncatedNormalMask:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        return self


class CosineMask(Strict):
    """Mask ratio cos(pi/2 * u), u uniform: every stage of generation gets its share. For small token grids."""

    kind: Literal["cosine"] = "cosine"


class Replicated(Strict):
    """Every process holds the whole model and works on its share of a batch (DDP)."""

    kind: Literal["ddp"] = "ddp"


class Sharded(Strict):
    """The processes share one model, its averages and its optimizer state among them (FSDP2)."""

    kind: Literal["fsdp"] = "fsdp"
    replicas: PositiveInt = 1                      # groups that hold the whole model each (hybrid shard): one a node, say


class TrainSpec(Strict):
    """How a model is trained."""

    init_from: str | None = None                   # fine-tuning: a shipped model, a folder, a run, a Hub repository
    steps: PositiveInt = 10_000                    # optimizer steps
    batch_size: PositiveInt = 256                  # global: whatever the number of processes or accumulation steps
    micro_batch_size: PositiveInt | None = None    # samples per forward pass; None: a process's share of the batch at once
    lr: PositiveFloat = 1e-4
    lr_schedule: LearningRateSchedule = ConstantSchedule()
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02  # matrices only: not bias, norm, embedding, position, mask
    weight_decay_schedule: WeightDecaySchedule = ConstantSchedule()
    betas: tuple[Probability, Probability] = (0.9, 0.95)
    eps: PositiveFloat = 1e-6
    max_grad_norm: PositiveFloat = 3.0
    precision: Literal["float32", "bfloat16"] = "float32"
    parallel: Annotated[Replicated | Sharded, Field(discriminator="kind")] = Replicated()  # when there are several processes
    activation_checkpointing: Literal["none", "full"] | PositiveInt = "none"  # recompute every block, or every k-th, backwards
    compile: bool = False                          # torch.compile of every block of the trunk
    ema_decay: Probability = 0.9999
    ema_warmup: bool = True                        # decay = min(ema_decay, (1 + step) / (10 + step))
    jepa_weight: Annotated[float, Field(ge=0.0)] = 1.0
    condition_drop: Probability = 0.1              # to the learned null condition, for guidance
    given_probability: Probability = 0.0           # several streams: chance that one of them is given whole
    mask: Annotated[TruncatedNormalMask | CosineMask, Field(discriminator="kind")] = TruncatedNormalMask()
    buckets: PositiveInt | tuple[PositiveFloat, ...] | None = None  # batches of nearly one length: how many, or their limits
    num_workers: Annotated[int, Field(ge=0)] = 0
    load_timeout: Annotated[float, Field(ge=0.0)] = 0.0  # seconds that an example may take a worker; 0: any time
    on_error: Literal["raise", "skip"] = "raise"   # what becomes of files that cannot be read; skip: others replace them
    log_every: PositiveInt = 10

    @model_validator(mode="after")
    def _micro_divides(self) -> TrainSpec:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size={self.micro_batch_size} must divide batch_size={self.batch_size}; "
                             f"{nearest_divisors(self.batch_size, self.micro_batch_size)} would")
        return self

    @model_validator(mode="after")
    def _limits_rise(self) -> TrainSpec:
        limits = self.buckets if isinstance(self.buckets, tuple) else (1.0,)
        if not limits or list(limits) != sorted(set(limits)):
            raise ValueError(f"buckets={list(limits)}: the longest lengths of buckets rise, and there is at least one")
        return self

    @model_validator(mode="after")
    def _rates_fall(self) -> TrainSpec:
        end = getattr(self.lr_schedule, "end", 0.0)
        if end > self.lr:
            raise ValueError(f"lr_schedule.end={end:g} is above lr={self.lr:g}; after its warm-up a rate only falls")
        return self

    @model_validator(mode="after")
    def _somebody_waits(self) -> TrainSpec:
        if self.load_timeout and not self.num_workers:
            raise ValueError(f"load_timeout={self.load_timeout:g} needs num_workers of at least 1, whom somebody can wait for")
        return self


def nearest_divisors(number: int, wish: int) -> str:
    """The divisors of a number around a wish, as a reader is told of them: "8 or 16"."""
    divisors = [divisor for divisor in range(1, number + 1) if number % divisor == 0]
    below, above = (max((one for one in divisors if one <= wish), default=None),
                    min((one for one in divisors if one >= wish), default=None))
    return " or ".join(str(one) for one in dict.fromkeys((below, above)) if one is not None)


class CheckpointSpec(Strict):
    """When a run is saved."""

    every: PositiveInt = 1000                      # steps; the last step is always saved
    keep: PositiveInt = 2                          # newest checkpoints kept
    keep_every: PositiveInt | None = None          # and those whose step this divides
    keep_best: str | None = None                   # and the one with the lowest of this logged value, such as "loss"


class PreviewSpec(Strict):
    """Samples drawn while training, from the raw and from the averaged weights."""

    every: Annotated[int, Field(ge=0)] = 1000      # steps; 0: never
    num_samples: PositiveInt = 4                   # per condition
    num_conditions: PositiveInt = 10               # the first so many combinations
    conditions: tuple[Any, ...] = ()               # these in their place, such as texts: each a value, or a map by name
    seed: int = 0


class EvaluateSpec(Strict):
    """How generated samples are compared with real ones: while training, and by `djepa evaluate`."""

    every: Annotated[int, Field(ge=0)] = 0         # steps of training; 0: never while training
    num_samples: Annotated[int, Field(ge=2)] = 1000  # generated; their conditions are distributed as those of the data
    num_real: Annotated[int, Field(ge=2)] | None = None  # examples compared with, spread over the data; None: all
    data: DatasetNode | None = None                # compared with; None: the data trained on
    stream: Name | None = None                     # None: the model's first
    features: ExtractorNode | None = None          # None: the modality's own
    metrics: Annotated[tuple[MetricNode, ...], Field(min_length=1)] = tuple(Component(kind=kind) for kind in STANDARD_METRICS)
    num_groups: Annotated[int, Field(ge=0)] = 20   # of the jackknife that gives standard errors; 0: none are given
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0  # of the first sample; the next has seed + 1

    @model_validator(mode="after")
    def _groups_have_members(self) -> EvaluateSpec:
        if self.num_groups == 1 or self.num_groups > self.num_samples // 2:
            raise ValueError(f"num_groups={self.num_groups} must be 0, or from 2 to half of num_samples={self.num_samples}")
        return self


class RecipeSchema(Strict):
    """A whole recipe."""

    schema_version: Literal[1] = SCHEMA_VERSION
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DatasetNode
    model: ModelSpec
    train: TrainSpec = TrainSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    preview: PreviewSpec = PreviewSpec()
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec)
