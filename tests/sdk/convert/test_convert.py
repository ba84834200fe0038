"""Published MAR and D-JEPA checkpoints become model folders; every tensor of theirs is accounted for."""

import json

import golden_vectors
import pytest
import torch
from safetensors.torch import load_file, save_file

from djepa import Pipeline, Sample
from djepa.convert import convert
from djepa.errors import CheckpointError, UsageError

KINDS = ("mar", "djepa-gauss", "djepa-flow")
CLASSES = golden_vectors.SIZES["class_num"]


def weights(folder):
    return load_file(folder / "model.safetensors")


def settings(folder):
    return json.loads((folder / "config.json").read_text())["model"]


def values(state):
    """All numbers of a state dict, in an order that names have no part in."""
    return torch.cat([tensor.flatten().float() for tensor in state.values()]).sort().values


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_the_source_is_used_once(kind, published, content, tmp_path):
    report = convert(published(kind), tmp_path / "out")
    source = content(kind)["model_ema"]
    assert set(report.used) == set(source)
    targets = [name for names in report.used.values() for name in names]
    assert len(targets) == len(set(targets)) and set(targets) == set(weights(tmp_path / "out"))
    assert torch.equal(values(source), values(weights(tmp_path / "out")))
    assert set(report.dropped) == {"model", "epoch", "args", "optimizer", "scaler"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_model_generates(kind, published, tmp_path):
    convert(published(kind), tmp_path / "out")
    pipe = Pipeline.from_pretrained(tmp_path / "out", device="cpu")
    samples = pipe.generate([0, 2], num_steps=3, num_denoising_steps=3)
    assert [tuple(sample.data.shape) for sample in samples] == [(2, 8, 8)] * 2
    assert all(bool(sample.data.isfinite().all()) for sample in samples)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_read_off_the_tensors(kind, published, tmp_path):
    report = convert(published(kind), tmp_path / "out")
    assert report.kind == kind.split("-")[0]
    expected = {"width": 24, "predictor_width": 36, "encoder_depth": 1, "predictor_depth": 2, "num_tokens": 16, "channels": 8,
                "num_conditions": 5, "num_classes": 3, "head_depth": 3, "head_width": 20,
                "head": "flow" if kind == "djepa-flow" else "gaussian"}
    assert {name: report.sizes[name] for name in expected} == expected
    model = settings(tmp_path / "out")
    assert (model["num_heads"], model["predictor_num_heads"]) == (2, 3)
    assert model["qk_norm"] == model["feature_head"] == (kind != "mar")
    assert model["output_position"] == model["predictor_condition_position"] == (kind == "mar")


@pytest.mark.parametrize(("kind", "denoising_steps", "temperature"), [
    ("mar", 100, 1.0), ("djepa-gauss", 100, 0.94), ("djepa-flow", 99, 1.0)])
def test_a_converted_model_generates_as_published(kind, denoising_steps, temperature, published, tmp_path):
    convert(published(kind), tmp_path / "out")
    model = settings(tmp_path / "out")
    expected = {"num_steps": 64, "num_denoising_steps": denoising_steps, "temperature": temperature, "guidance_scale": 1.0,
                "guidance_schedule": "linear", "clamp": False}
    assert {name: model["generate"][name] for name in expected} == expected
    head = model["streams"]["image"]["head"]
    assert head["num_noise_samples"] == 1 and head.get("time_scale") == (1.0 if kind == "djepa-flow" else None)


def test_tokens_are_latents_times_0_2325(published, tmp_path):
    convert(published("mar"), tmp_path / "out")
    pipe = Pipeline.from_pretrained(tmp_path / "out", device="cpu")
    latents = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = pipe.tokenizers["image"].encode(Sample(latents, {}, "image"))
    assert torch.allclose(tokens.values[0], 0.2325 * latents[:, :2, :2].flatten())
    assert torch.allclose(pipe.tokenizers["image"].decode(tokens).data, latents, atol=1e-6)


def test_the_averaged_weights_are_taken_unless_the_raw_ones_are_asked_for(published, content, tmp_path):
    state = content("mar")
    for entry, options in (("model_ema", {}), ("model", {"weights": "raw"})):
        report = convert(published("mar"), tmp_path / entry, **options)
        assert torch.equal(weights(tmp_path / entry)["conditioners.label.embedding"], state[entry]["class_emb.weight"])
        assert {"model", "model_ema"} - {entry} <= set(report.dropped)


def test_weights_that_are_not_there_are_refused_and_the_others_offered(saved, content, tmp_path):
    state = content("mar")
    del state["model_ema"]
    with pytest.raises(CheckpointError, match=r"no entry 'model_ema'.*--weights raw"):
        convert(saved(state), tmp_path / "out")
    convert(saved(state), tmp_path / "out", weights="raw")


@pytest.mark.parametrize("form", ["pth", "safetensors", "wrapped"])
def test_a_bare_state_dict_will_do(form, saved, published, content, tmp_path):
    convert(published("djepa-gauss"), tmp_path / "whole")
    state = content("djepa-gauss")["model_ema"]
    if form == "safetensors":
        path = tmp_path / "bare.safetensors"
        save_file(state, path)
    else:
        path = saved({f"module.{name}" if form == "wrapped" else name: tensor for name, tensor in state.items()})
    convert(path, tmp_path / "out", patch_size=2)  # heads are told by the norms of queries and keys
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert settings(tmp_path / "whole")["streams"]["image"]["shape"] == settings(tmp_path / "out")["streams"]["image"]["shape"]


def test_a_config_beside_the_file_tells_what_tensors_do_not(saved, content, tmp_path):
    path = saved(content("mar")["model_ema"])
    (tmp_path / "config.json").write_text(json.dumps({"encoder_num_heads": 4, "decoder_num_heads": 6, "patch_size": 2}))
    convert(path, tmp_path / "out")
    assert (settings(tmp_path / "out")["num_heads"], settings(tmp_path / "out")["predictor_num_heads"]) == (4, 6)


def test_attention_heads_that_nothing_tells_have_to_be_given(saved, content, tmp_path):
    path = saved(content("mar")["model_ema"])
    with pytest.raises(CheckpointError, match=r"width 24.*--num-heads"):
        convert(path, tmp_path / "out")
    with pytest.raises(CheckpointError, match="cannot have 5 attention heads: they do not divide its width of 24"):
        convert(path, tmp_path / "out", num_heads=5)
    convert(path, tmp_path / "out", num_heads=4)
    assert settings(tmp_path / "out")["num_heads"] == 4


def test_heads_that_contradict_the_tensors_are_refused(published, tmp_path):
    with pytest.raises(CheckpointError, match="the tensors are for 2"):
        convert(published("djepa-gauss"), tmp_path / "out", num_heads=4)


def test_labels_name_the_classes(published, tmp_path):
    convert(published("mar"), tmp_path / "out", labels=["cat", "dog", "crane"])
    pipe = Pipeline.from_pretrained(tmp_path / "out", device="cpu")
    assert pipe.conditions() == {"label": ["cat", "dog", "crane"]}
    by_name, by_id = (pipe.generate(one, num_steps=2, num_denoising_steps=2)[0].data for one in ("dog", 1))
    assert torch.equal(by_name, by_id)


def test_without_labels_classes_are_called_by_their_ids(published, tmp_path):
    convert(published("mar"), tmp_path / "out")
    assert settings(tmp_path / "out")["conditions"]["label"]["names"] == ["0", "1", "2"]


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "a"], []])
def test_labels_that_do_not_fit_are_refused(labels, published, tmp_path):
    with pytest.raises(UsageError, match=f"needs as many different labels; there are {len(labels)}"):
        convert(published("mar"), tmp_path / "out", labels=labels)
    assert not (tmp_path / "out").exists()


def test_with_an_autoencoder_the_folder_makes_pictures_by_itself(published, published_autoencoder, tmp_path):
    pytest.importorskip("diffusers")
    convert(published_autoencoder, tmp_path / "kl")
    convert(published("djepa-flow"), tmp_path / "pictures", tokenizer=tmp_path / "kl")
    convert(published("djepa-flow"), tmp_path / "latents")
    (tmp_path / "kl").rename(tmp_path / "elsewhere")
    options = {"conditions": 1, "num_steps": 2, "num_denoising_steps": 2}
    pipe = Pipeline.from_pretrained(tmp_path / "pictures", device="cpu")
    picture = pipe.generate(**options)[0]
    latents = Pipeline.from_pretrained(tmp_path / "latents", device="cpu").generate(**options)[0].data
    assert picture.data.shape == (3, 64, 64)
    picture.save(tmp_path / "picture.png")

    from diffusers import AutoencoderKL

    network = AutoencoderKL.from_pretrained(tmp_path / "elsewhere", low_cpu_mem_usage=False)
    with torch.no_grad():
        decoded = network.decode(latents[None]).sample[0].clamp(-1, 1)
    assert torch.allclose(picture.data, decoded, atol=1e-5)


def test_an_autoencoder_with_other_latents_is_refused(published, tmp_path):
    folder = golden_vectors.write_autoencoder(tmp_path / "kl", channels=(32, 32), latents=5)
    convert(folder / "kl16-tiny.ckpt", tmp_path / "vae")
    with pytest.raises(CheckpointError, match=r"tokens of 20 channels.*the model is for 4x4 of 8"):
        convert(published("mar"), tmp_path / "out", tokenizer=tmp_path / "vae")
    with pytest.raises(CheckpointError, match="nowhere"):
        convert(published("mar"), tmp_path / "out", tokenizer=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_weights_keep_their_precision(saved, content, tmp_path):
    state = content("djepa-flow")
    state["model_ema"] = {name: tensor.half() for name, tensor in state["model_ema"].items()}
    convert(saved(state), tmp_path / "out")
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {torch.float16}
    Pipeline.from_pretrained(tmp_path / "out", device="cpu").generate(0, num_steps=2, num_denoising_steps=2)


def test_a_model_without_feature_head_is_converted_without(saved, content, tmp_path):
    state = content("djepa-gauss")
    state["model_ema"] = {name: tensor for name, tensor in state["model_ema"].items() if not name.startswith("jepaloss.")}
    convert(saved(state), tmp_path / "out")
    assert settings(tmp_path / "out")["feature_head"] is False


def test_other_things_in_the_folder_are_kept(published, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        convert(published("mar"), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale, published, tmp_path):
    with pytest.raises(UsageError, match="latent_scale"):
        convert(published("mar"), tmp_path / "out", latent_scale=scale)
