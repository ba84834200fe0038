"""The recorded numbers of the reference implementations, reproduced from their own checkpoint files.

The tensors and their bounds are described in the README.md beside them.
"""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from djepa import Pipeline, Sample
from djepa.convert import convert
from djepa.generate import Sampling, Schedule, generate
from djepa.heads.head import GuidedNetwork
from djepa.heads.schedule import respaced
from djepa.losses import JEPA_BETA

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "golden"
KINDS = ("mar", "djepa-gauss", "djepa-flow")

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the recorded numbers of the reference are not at {FOLDER}")


class Reference:
    """A model of the reference, in ours, and its recorded tensors."""

    def __init__(self, kind, folder):
        self.flow = kind.endswith("flow")
        convert(FOLDER / kind / "checkpoint-last.pth", folder, latent_scale=1.0)
        pipe = Pipeline.from_pretrained(folder, device="cpu", dtype="float32")
        self.model, self.tokenizer = pipe.model, pipe.tokenizers["image"]
        self.head = self.model.stream("image").head
        self.recorded = load_file(FOLDER / kind / "golden.safetensors")
        self.batch = {"image": self.tokenizer.encode_batch([Sample(latent) for latent in self["latents"]])}
        self.hidden = {"image": self["mask"].bool()}
        self.labels = {"label": self["labels"]}
        everywhere = torch.ones_like(self["labels"], dtype=torch.bool)
        self.null = {"label": self.model.conditioners["label"].null(self["labels"], everywhere)}

    def __getitem__(self, name):
        return self.recorded[name]

    def check(self, name, ours, recorded=None):
        wanted = self[name] if recorded is None else recorded
        torch.testing.assert_close(ours, wanted, atol=1e-4 + 1e-6 * float(wanted.abs().max()), rtol=0,
                                   msg=lambda text: f"{name}: {text}")

    def vectors(self):
        return self.model(self.batch, self.hidden, self.labels)["image"]

    def flat(self, name):
        return self[name].flatten(0, 1)


@pytest.fixture(scope="module", params=KINDS)
def reference(request, tmp_path_factory):
    return Reference(request.param, tmp_path_factory.mktemp("converted") / request.param)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_latents_are_cut_into_the_same_tokens(reference):
    assert torch.equal(reference.batch["image"].values, reference["tokens"])


@pytest.mark.parametrize("name", ["encoder_out", "encoder_out_uncond"])
def test_encoder(reference, name):
    condition = reference.model.condition(reference.null if "uncond" in name else reference.labels, len(reference["labels"]))
    sequence = reference.model.sequence(reference.batch, condition)
    features = reference.model.encode(reference.batch, reference.hidden, sequence)
    reference.check(name, features.view_as(reference[name]))


def test_predictor(reference):
    reference.check("z", reference.vectors())


def test_denoising_network(reference):
    network = reference.head.network
    ours = network(reference["head_xt"], reference["head_t"].float(), network.project(reference["head_c"]))
    reference.check("head_out", ours)


def test_denoising_loss(reference):
    context = reference.head.network.project(reference.flat("z"))
    parts = reference.head.loss_at(reference.flat("tokens"), context, reference["loss_t"], reference["loss_noise"])
    if not reference.flow:
        reference.check("loss_mse_per_token", parts[0])
        reference.check("loss_vb_per_token", parts[1])
        parts = parts[0] + parts[1]
    reference.check("loss_per_token", parts)
    reference.check("loss", parts[reference["mask"].flatten() == 1].mean())


def test_jepa_loss(reference):
    if reference.model.feature_head is None:
        pytest.skip("MAR has no JEPA loss")
    predicted, target = reference.model.feature_head(reference.vectors()), reference["jepa_target"]
    reference.check("jepa_pred", predicted)
    reference.check("target_encoder_out", reference.model.target_features(reference.batch, reference.labels)["image"])
    hidden = reference.hidden["image"]
    reference.check("jepa_loss", F.smooth_l1_loss(predicted[hidden], target[hidden], beta=JEPA_BETA))


def test_denoising_steps(reference):
    if reference.flow:
        pytest.skip("single denoising steps are recorded of the gaussian head")
    times = reference["ddpm_timesteps"].tolist()
    assert respaced(len(times)).times.tolist() == times[::-1]
    network = GuidedNetwork(reference.head.network, reference["head_c"], reference["head_c_uncond"], lambda time: 2.0)
    for index, step in enumerate(reversed(range(len(times)))):
        draw = reference["ddpm_noise"][index] if step else None
        ours = reference.head.denoise(network, reference["ddpm_x"][index], step, len(times), draw, 0.9, None)
        reference.check(f"ddpm_next at {times[index]}", ours, reference["ddpm_next"][index])


class RecordedNoise:
    """The noise a head was given at one generation step."""

    def __init__(self, reference, place):
        self.reference, self.place = reference, place

    def normal(self, purpose, num, width):
        if purpose == "start":
            return self.reference[f"{self.place}/init_noise"][None]
        return self.reference[f"{self.place}/step_noise"]


SAMPLES = {  # generation settings, and the time shift of flow
    "sample_cfg1": (Sampling(5, 10, temperature=0.9, guidance_scale=1.0), 1.0),
    "sample_cfg3": (Sampling(6, 10, temperature=1.0, guidance_scale=3.0), 1.0),
    "sample_cfg2c": (Sampling(4, 10, temperature=0.98, guidance_scale=2.0, guidance_schedule="constant"), 2.0),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(reference, name, monkeypatch):
    sampling, shift = SAMPLES[name]
    if reference.flow:  # ten points in time are nine steps, and the reference ignores the temperature
        monkeypatch.setattr(reference.head, "shift", shift)
        sampling = Sampling(sampling.num_steps, 9, 1.0, sampling.guidance_scale, sampling.guidance_schedule)
    order = reference[f"{name}/orders"].flip(1)  # recorded with the last first
    schedule = Schedule.plan(order, torch.ones_like(order, dtype=torch.bool), sampling.num_steps)
    model, rows = reference.model, len(order)
    null = model.condition(reference.null, rows) if sampling.guidance_scale != 1.0 else None
    done = generate(model, reference.batch, {"image": schedule}, model.condition(reference.labels, rows), null, sampling,
                    lambda stream, step, revealed, num_tokens: RecordedNoise(reference, f"{name}/step{step}"), {"image": None})
    latents = torch.stack([sample.data for sample in reference.tokenizer.decode_batch(done["image"])])
    reference.check(f"{name}/latents", latents)


def test_nothing_recorded_is_left_out(reference):
    """Inputs and outputs named above are all there is."""
    inputs = """latents tokens labels mask head_xt head_t head_c head_c_uncond loss_t loss_noise jepa_target
                ddpm_timesteps ddpm_x ddpm_noise"""
    outputs = """encoder_out encoder_out_uncond z head_out loss_mse_per_token loss_vb_per_token loss_per_token loss
                 jepa_pred jepa_loss target_encoder_out ddpm_next"""
    samples = re.compile(rf"({'|'.join(SAMPLES)})/(orders|latents|step\d+/(init|step)_noise)")
    known = {*inputs.split(), *outputs.split()}
    assert not [name for name in reference.recorded if name not in known and not samples.fullmatch(name)]
