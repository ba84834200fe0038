"""Model folders: what is saved is what is loaded, and what cannot be loaded says why."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from djepa import Pipeline, Trainer
from djepa.errors import CheckpointError, StorageError, UsageError
from djepa.hookspecs import hookimpl
from djepa.plugins import temporary
from djepa.storage import FORMAT, load_model, read_config, read_tensors, required_plugins, write_tensors
from djepa_tokenizers.patchify import Patchify

LIMITED = """
import resource, sys
from djepa import Pipeline
pipe = Pipeline.from_pretrained(sys.argv[1], device="cpu")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # bytes: writing fails in the middle of the weights
from djepa.errors import StorageError
try:
    pipe.save_pretrained(sys.argv[2])
except StorageError as error:
    sys.exit(f"error: {error}")
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory):
    return pipe.save_pretrained(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def model(saved, tmp_path):
    """A copy of a model folder, to be spoilt."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def configured(model):
    """The model folder with some keys of its configuration replaced."""
    def replace(**changes):
        path = model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return model

    return replace


def refusal(folder):
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value) and caught.value.exit_code == 2
    return str(caught.value)


# What is saved is what is loaded.


def test_weights_come_back_bit_for_bit(pipe, saved):
    model, spec, tokenizers, about = load_model(saved)
    assert same(model.state_dict(), {name: tensor for name, tensor in pipe.model.state_dict().items()
                                     if not name.startswith("feature_head.")})
    assert not model.training and spec == pipe.spec.model_copy(update={"feature_head": False})
    assert tokenizers["image"].options() == pipe.tokenizers["image"].options() and about == pipe.about
    assert names(saved) == ["README.md", "config.json", "model.safetensors"]


def test_a_model_that_is_loaded_and_saved_is_the_same_files(saved, tmp_path):
    again = Pipeline.from_pretrained(saved, device="cpu").save_pretrained(tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()
    assert json.loads((again / "config.json").read_text()) == json.loads((saved / "config.json").read_text())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_can_be_stored_in_half_the_bytes(pipe, saved, tmp_path, dtype):
    half = pipe.save_pretrained(tmp_path / "half", dtype=dtype)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, saved)]
    assert sizes[0] < 0.6 * sizes[1]
    rounded = {name: tensor.to(dtype).float() for name, tensor in load_file(saved / "model.safetensors").items()}
    assert same(dict(load_model(half)[0].state_dict()), rounded)


def test_the_configuration_holds_everything_the_data_decided(saved, pipe):
    config = json.loads((saved / "config.json").read_text())
    stream = config["model"]["streams"]["image"]
    assert config["format"] == FORMAT and stream["shape"] == [1, 8, 8] and config["requires"] == {}
    assert config["model"]["conditions"]["label"]["names"] == [str(digit) for digit in range(10)]
    assert len(stream["tokenizer"]["mean"]) == 1 and required_plugins(pipe.spec) == {}
    assert config["about"]["description"] == "tiny digits" and config["about"]["step"] == 6


def test_loading_leaves_global_random_states_alone(saved, untouched):
    load_model(saved)


def test_a_pipeline_replaces_an_older_model_and_nothing_else(pipe, model):
    (model / "model.safetensors").write_bytes(b"old")
    assert pipe.save_pretrained(model) == model
    load_model(model)
    (model / "thesis.txt").write_text("the only copy")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        pipe.save_pretrained(model)
    assert (model / "thesis.txt").read_text() == "the only copy"


def test_a_checkpoint_is_not_saved_over(pipe, trained, tmp_path):
    checkpoint = shutil.copytree(trained / "checkpoints" / "step_00000006", tmp_path / "checkpoint")
    before = names(checkpoint)
    with pytest.raises(UsageError, match=r"training\.safetensors"):
        pipe.save_pretrained(checkpoint)
    assert names(checkpoint) == before


def test_a_file_is_not_replaced_by_a_folder(pipe, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="file"):
        pipe.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine" and names(tmp_path) == ["file"]


class Louder(Patchify):
    """A tokenizer with a network: one weight, which its options do not hold."""

    gain = torch.tensor(1.0)

    def decode_batch(self, tokens):
        return super().decode_batch(tokens.with_values(tokens.values * self.gain))

    def save_assets(self, folder):
        save_file({"gain": self.gain}, folder / "gain.safetensors")

    def load_assets(self, folder):
        self.gain = read_tensors(folder / "gain.safetensors")["gain"]


class Plugin:
    @hookimpl
    def djepa_register_tokenizers(self, register):
        register("louder", f"{__name__}:Louder")


def test_the_network_of_a_tokenizer_goes_along(make_recipe, tmp_path):
    with temporary(Plugin()):
        recipe = make_recipe("model.streams.image.tokenizer={kind: louder, patch: 2}", "train.steps=1")
        pipe = Pipeline.from_pretrained(Trainer(recipe, device="cpu").fit(tmp_path / "run"), device="cpu")
        pipe.tokenizers["image"].gain = torch.tensor(0.25)
        for _ in range(2):  # the second time over the first
            loaded = Pipeline.from_pretrained(pipe.save_pretrained(tmp_path / "model"), device="cpu")
            assert torch.equal(loaded.generate(1)[0].data, pipe.generate(1)[0].data)
        assert loaded.tokenizers["image"].gain == 0.25
        (tmp_path / "model" / "tokenizers" / "image" / "gain.safetensors").write_bytes(b"torn")
        assert "gain.safetensors" in refusal(tmp_path / "model")


# What cannot be loaded says why.


@pytest.mark.parametrize(("change", "told"), [
    (lambda tensors: tensors.pop("encoder.norm_in.weight"), "missing 'encoder.norm_in.weight'"),
    (lambda tensors: tensors.update(stowaway=torch.zeros(1)), "unexpected 'stowaway'"),
    (lambda tensors: tensors.update({"encoder.norm_in.weight": torch.zeros(7)}),
     "'encoder.norm_in.weight' has shape [7] instead of [32]"),
])
def test_weights_that_do_not_fit_are_named(model, change, told):
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors")
    assert told in refusal(model)


def test_many_wrong_weights_are_counted(model):
    count = len(load_file(model / "model.safetensors"))
    save_file({}, model / "model.safetensors")
    assert f"and {count - 5} more" in refusal(model)


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(path.read_bytes()[:-100]),
    lambda path: path.write_bytes(path.read_bytes()[:50]),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"\x80\x04\x95" + bytes(200)),  # how a pickle begins
    lambda path: path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:]),  # a header longer than the world
    lambda path: path.write_text("{}" * 50),
], ids=["truncated", "cut in the header", "empty", "pickle", "absurd header", "text"])
def test_damaged_weights_are_named(model, spoil):
    spoil(model / "model.safetensors")
    assert "model.safetensors" in refusal(model)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_part_is_named(model, name):
    (model / name).unlink()
    assert name in refusal(model)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"{}", b'{"format": "one"}', b'{"format": 1}',
                                     b'{"format": 0, "model": {}}', b'{"format": -3}', b'{"format": 1, "model": []}',
                                     b'{"format": 1, "model": {}, "requires": [1]}', b'{"format": 1, "model": "x", "about": 3}',
                                     b"[" * 100_000])
def test_a_configuration_that_is_none_is_refused(model, content):
    (model / "config.json").write_bytes(content)
    assert "config.json" in refusal(model)


def test_a_newer_format_says_to_upgrade(configured):
    assert "pip install -U djepa" in refusal(configured(format=FORMAT + 1))


def test_missing_plugins_are_named_with_what_to_install(configured):
    assert "pip install djepa-whales==1.2 djepa-zebras;" in refusal(configured(requires={"djepa-whales": "1.2",
                                                                                           "djepa-zebras": ""}))


@pytest.mark.parametrize(("path", "value", "told"), [
    (("streams", "image", "head", "kind"), "gausian", "Did you mean 'gaussian'?"),
    (("streams", "image", "tokenizer", "kind"), "patchfy", "Did you mean 'patchify'?"),
    (("streams", "image", "modality"), "imag", "Did you mean 'image'?"),
    (("conditions", "label", "kind"), "clas", "Did you mean 'class'?"),
    (("streams", "image", "head", "dept"), 3, "did you mean 'depth'?"),
    (("width",), 33, "width=33"),
    (("streams", "image", "shape"), None, "shape"),
    (("streams", "image", "shape"), [1, 7, 8], "7"),
    (("conditions", "label", "names"), [], "names"),
])
def test_a_part_that_cannot_be_built_is_named(model, configured, path, value, told):
    spec = json.loads((model / "config.json").read_text())["model"]
    node = spec
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert told in refusal(configured(model=spec))


# What cannot be saved leaves what was there.


def test_a_full_disk_leaves_an_older_model_as_it_was(pipe, model, small_disk):
    size = (model / "model.safetensors").stat().st_size // 1024
    disk = small_disk(size + 40)  # room for one model
    older = shutil.copytree(model, disk / "model")
    content = (older / "model.safetensors").read_bytes()
    for name in ("model", "another"):
        with pytest.raises(StorageError, match="No space left on device") as caught:
            pipe.save_pretrained(disk / name)
        assert caught.value.exit_code == 1 and str(disk / name) in str(caught.value)
    assert names(disk) == ["model"] and (older / "model.safetensors").read_bytes() == content
    load_model(older)


def test_a_limit_on_files_is_a_storage_error_too(process, saved, tmp_path):
    outcome = process(saved, tmp_path / "model", code=LIMITED)
    assert outcome.code == 1 and "model.safetensors" in outcome.error() and names(tmp_path) == []


def test_single_tensors_may_be_views_of_others(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    write_tensors(tmp_path / "x", {"transposed": base.T, "row": base[1]})
    assert same(read_tensors(tmp_path / "x"), {"transposed": base.T.contiguous(), "row": base[1]})


def test_a_configuration_is_read_without_the_weights(model):
    (model / "model.safetensors").unlink()
    spec, about = read_config(model)
    assert spec.width == 32 and about["step"] == 6
