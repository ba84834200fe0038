"""What tests of the SDK share: small models made of the core's own parts, a trained one, and the command line."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from djepa.conditioner import ClassConditioner
from djepa.heads.flow import FlowHead
from djepa.heads.gaussian import GaussianHead
from djepa.model import Encoder, FeatureHead, MaskedModel, Predictor, Stream
from djepa.nn.positions import RotaryPosition
from djepa.nn.transformer import Transformer
from djepa.random import Draws, seeded
from djepa.tokens import TokenBatch, Tokens

HEADS = {"gaussian": GaussianHead, "flow": FlowHead}
WIDTH, PREDICTOR_WIDTH, NUM_HEADS = 16, 24, 2


def build_small_model(
    streams: Mapping[str, int], *, classes: int = 3, num_conditions: int = 4, num_tokens: int | None = 6,
    head: str = "gaussian", feature_head: bool = True, mar: bool = False, dropout: float = 0.0, jitter: float = 0.1,
    seed: int = 0,
) -> MaskedModel:
    """A model of two blocks twice.

    Args:
        streams: token width of each.
        classes: 0 makes it unconditional.
        num_tokens: per stream, with learned positions; None: rotary positions over two axes.
        mar: with the position tables only MAR has.
        jitter: noise added to every parameter, so that none is zero as some are at the start of training.
    """
    def transformer(width: int) -> Transformer:
        return Transformer(width, 2, NUM_HEADS, mlp_ratio=4, qk_norm=not mar, dropout=dropout, backend=None)

    def stream(channels: int) -> Stream:
        made = HEADS[head](channels, PREDICTOR_WIDTH, depth=2, width=16, num_noise_samples=2)
        return Stream(channels, WIDTH, PREDICTOR_WIDTH, (0, 1), made, num_tokens, output_position=mar)

    def rotary(width: int) -> RotaryPosition | None:
        return None if num_tokens else RotaryPosition(("y", "x"), width // NUM_HEADS, {"y": 2.0}, 100.0)

    with seeded(seed, "small model"):
        names = [f"class {number}" for number in range(classes)]
        model = MaskedModel(
            streams={name: stream(channels) for name, channels in streams.items()},
            conditioners={"label": ClassConditioner(WIDTH, names=names, num_tokens=num_conditions)} if classes else {},
            encoder=Encoder(WIDTH, transformer(WIDTH)),
            predictor=Predictor(WIDTH, PREDICTOR_WIDTH, transformer(PREDICTOR_WIDTH), num_conditions if mar else 0),
            rotary=rotary(WIDTH),
            feature_head=FeatureHead(PREDICTOR_WIDTH, WIDTH) if feature_head else None,
            predictor_rotary=rotary(PREDICTOR_WIDTH),
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += jitter * torch.randn_like(parameter)
    return model.eval()


def make_tokens(width: int, lengths: list[int], seed: int = 0) -> TokenBatch:
    """Random tokens at random coordinates of two axes; sample `j` is the same whatever the other lengths are."""
    draws = Draws(seed, "tokens")
    items = []
    for sample, length in enumerate(lengths):
        numbers = draws.normal(torch.tensor(sample), torch.arange(length), width + 2)
        items.append(Tokens(numbers[:, :width], numbers[:, width:]))
    return TokenBatch.stack(items)


@pytest.fixture(scope="session")
def small_model() -> Callable[..., MaskedModel]:
    return build_small_model


@pytest.fixture(scope="session")
def token_batch() -> Callable[..., TokenBatch]:
    return make_tokens


# A tiny model trained for a few steps on the real digits, and the command line.

TINY = (
    "model.width=32", "model.num_heads=2", "model.encoder_depth=1", "model.predictor_depth=1",
    "model.conditions.label.num_tokens=2", "model.streams.image.head.depth=1", "model.streams.image.head.width=32",
    "model.generate.num_steps=4", "model.generate.num_denoising_steps=5", "train.batch_size=8", "train.warmup_steps=2",
    "train.log_every=1", "preview.every=0",
)
# Given, they need not be measured on all of the data first.
STATISTICS = ("model.streams.image.tokenizer.mean=-0.4", "model.streams.image.tokenizer.std=0.75")


@dataclass(frozen=True)
class Outcome:
    """What a command gave."""

    code: int
    out: str
    err: str

    def error(self):
        """The message of a command that failed for a reason it knows: one paragraph, nothing else."""
        assert self.err.startswith("error: ") and "Traceback" not in self.err and "\n\n" not in self.err, self.err
        return self.err


@pytest.fixture(scope="session")
def make_recipe():
    """A recipe of the digits that takes milliseconds a step, with further overrides."""
    from djepa import Recipe

    return lambda *overrides, name="image/digits", measured=False: Recipe.load(
        name, [*TINY, *(() if measured else STATISTICS), *overrides])


@pytest.fixture(scope="session")
def trained(tmp_path_factory, make_recipe):
    """The folder of a finished run of six steps; not to be changed."""
    from djepa import Trainer

    run = tmp_path_factory.mktemp("trained") / "run"
    recipe = make_recipe("train.steps=6", "checkpoint.every=2", "description=tiny digits", measured=True)
    Trainer(recipe, device="cpu").fit(run)
    return run


@pytest.fixture(scope="session")
def pipe(trained):
    """The tiny model, ready to generate; not to be changed."""
    from djepa import Pipeline

    return Pipeline.from_pretrained(trained, device="cpu")


@pytest.fixture
def command(monkeypatch, capsys):
    """The `djepa` command, run in this process: quick."""
    from djepa.cli import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["djepa", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        return Outcome(int(stopped.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def process(tmp_path):
    """Python code, by default the `djepa` command, in a process of its own with one thread."""
    def call(*arguments, code="from djepa.cli import main; main()", **environment):
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120,
                              cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def untouched():
    """Fails the test if a global random state is another one at its end."""
    def states():
        kind, key, *rest = np.random.get_state()
        return torch.get_rng_state().tolist(), (kind, key.tolist(), *rest), random.getstate()

    before = states()
    yield
    assert states() == before
