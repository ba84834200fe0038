"""A checkpoint of the size of MAR-B, training state included, is converted within a minute and 4 GB of memory."""

import json

import pytest

WRITE = """
import argparse, sys, torch
sys.path.insert(0, sys.argv[1])
from golden_reference import Model
config = {"kind": "mar", "img_size": 256, "vae_stride": 16, "patch_size": 1, "vae_embed_dim": 16, "class_num": 1000,
          "encoder_embed_dim": 768, "encoder_depth": 12, "encoder_num_heads": 12, "decoder_embed_dim": 768,
          "decoder_depth": 12, "decoder_num_heads": 12, "mlp_ratio": 4, "buffer_size": 64, "diffloss_d": 6,
          "diffloss_w": 1024, "qk_norm": False}
generator, state = torch.Generator().manual_seed(0), {}
with torch.device("meta"):
    shapes = {name: tensor.shape for name, tensor in Model(config).state_dict().items()}
def filled():
    return {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in shapes.items()}
moments = {index: {"step": torch.tensor(9.0), "exp_avg": torch.zeros(shape), "exp_avg_sq": torch.zeros(shape)}
           for index, shape in enumerate(shapes.values())}
args = argparse.Namespace(model="mar_base", img_size=256, vae_embed_dim=16, vae_stride=16, patch_size=1,
                          diffusion_batch_mul=4, num_sampling_steps="100", ema_rate=0.9999, device="cuda")
torch.save({"model": filled(), "model_ema": filled(), "optimizer": {"state": moments, "param_groups": [{"lr": 1e-4}]},
            "scaler": {"scale": 65536.0}, "epoch": 399, "args": args}, sys.argv[2])
"""

CONVERT = """
import json, resource, sys, time
start = time.perf_counter()
from djepa.convert import convert
report = convert(sys.argv[1], sys.argv[2])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB; pages of the file that were touched count
print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak, "sizes": dict(report.sizes)}))
"""

GENERATE = """
import json, resource, sys, time
from djepa import Pipeline
start = time.perf_counter()
pipe = Pipeline.from_pretrained(sys.argv[1], device="cpu")
loaded = time.perf_counter() - start
sample = pipe.generate(207, num_steps=4, num_denoising_steps=5)[0]
print(json.dumps({"loaded": loaded, "seconds": time.perf_counter() - start, "shape": list(sample.data.shape),
                  "parameters": sum(parameter.numel() for parameter in pipe.model.parameters()),
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
"""


@pytest.mark.slow
def test_mar_base_is_converted_and_generates(process, tmp_path, request, record_property):
    plain = request.config.rootpath / "tests" / "golden"
    written = process(plain, tmp_path / "checkpoint-last.pth", code=WRITE)
    assert written.code == 0, written.err
    size = (tmp_path / "checkpoint-last.pth").stat().st_size
    assert size > 3e9
    converted = json.loads(process(tmp_path / "checkpoint-last.pth", tmp_path / "out", code=CONVERT).out)
    assert converted["seconds"] < 60 and converted["peak"] < 4
    assert converted["sizes"]["num_heads"] == 12 and converted["sizes"]["num_tokens"] == 256
    (tmp_path / "checkpoint-last.pth").unlink()
    generated = json.loads(process(tmp_path / "out", code=GENERATE).out)
    assert generated["shape"] == [16, 16, 16] and generated["parameters"] == 207_924_768
    for name, facts in (("converted", converted), ("generated", generated)):
        record_property(name, facts)
        print(name, facts)
