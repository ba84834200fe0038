"""The plain reimplementation that our own vectors come from agrees with the recorded numbers of the reference, too."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from golden_reference import Diffusion, Model, flow_losses, flow_sample
from golden_vectors import SAMPLES
from safetensors.torch import load_file

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "golden"
POINTS = 10

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the recorded numbers of the reference are not at {FOLDER}")


def close(ours, recorded):
    torch.testing.assert_close(ours, recorded, atol=1e-4 + 1e-6 * float(recorded.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", ["mar", "djepa-gauss", "djepa-flow"])
@torch.no_grad()
def test_it_computes_what_was_recorded(kind):
    model = Model(json.loads((FOLDER / kind / "config.json").read_text())).eval()
    with torch.serialization.safe_globals([argparse.Namespace]):
        model.load_state_dict(torch.load(FOLDER / kind / "checkpoint-last.pth", weights_only=True)["model_ema"])
    g, net = load_file(FOLDER / kind / "golden.safetensors"), model.diffloss.net
    embedding, null = model.class_emb(g["labels"]), model.fake_latent.expand(len(g["labels"]), -1)
    assert torch.equal(model.patchify(g["latents"]), g["tokens"]) and torch.equal(model.unpatchify(g["tokens"]), g["latents"])
    encoded = model.encode(g["tokens"], g["mask"], embedding)
    close(encoded, g["encoder_out"])
    close(model.decode(encoded, g["mask"]), g["z"])
    close(net(g["head_xt"], g["head_t"], g["head_c"]), g["head_out"])
    flat, context = g["tokens"].flatten(0, 1), g["z"].flatten(0, 1)
    given = (net, flat, g["loss_t"], g["loss_noise"], context)
    close(flow_losses(*given) if model.flow else sum(Diffusion().losses(*given)), g["loss_per_token"])
    for name, settings in SAMPLES.items():
        close(sampled(model, name, settings, g, embedding, null), g[f"{name}/latents"])


def sampled(model, name, settings, g, embedding, null):
    guidance, schedule, temperature, steps, shift = settings
    net, diffusion = model.diffloss.net, Diffusion(POINTS)

    def denoise(step, z, z_null, scale):
        x = g[f"{name}/step{step}/init_noise"]
        if model.flow:
            return flow_sample(net, x, POINTS, z, z_null, scale, shift)
        for index, noise in zip(reversed(range(POINTS)), g[f"{name}/step{step}/step_noise"], strict=True):
            x = diffusion.step(net, x, index, noise, z, z_null, scale, temperature)
        return x

    return model.sample(g[f"{name}/orders"], embedding, null, steps=steps, denoise=denoise, guidance=guidance,
                        schedule=schedule)
