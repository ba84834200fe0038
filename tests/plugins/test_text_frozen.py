"""Text read by frozen encoders of transformers: tiny ones of random weights, saved as transformers saves them."""

import copy
import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from djepa.errors import CheckpointError, ConditionError, UsageError
from djepa.random import seeded
from djepa_text import encoder
from djepa_text.clip import ClipText
from djepa_text.t5 import T5Text

WIDTH = 12
TEXTS = ["a dog", "Zwölf Boxkämpfer", None, "犬", "a dog, on a long way home"]


def write_t5(folder, whole=False):
    """A T5 of 16 channels that reads bytes: its tokenizer needs no vocabulary."""
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel, T5Model

    config = T5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    with seeded(0, "t5"):
        (T5Model if whole else T5EncoderModel)(config).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return folder


def write_clip(folder, whole=False):
    """A CLIP of 16 channels and 40 places whose vocabulary is single letters."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = CLIPTextConfig(vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                          num_attention_heads=2, max_position_embeddings=40, bos_token_id=len(words) - 2,
                          eos_token_id=len(words) - 1, pad_token_id=len(words) - 1)
    picture = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
               "patch_size": 8}
    with seeded(0, "clip"):
        network = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=picture)) if whole else CLIPTextModel(text)
    network.save_pretrained(folder)
    CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    return folder


KINDS = {"t5": (T5Text, write_t5), "clip": (ClipText, write_clip)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoders")
    return {f"{kind}{'-whole' * whole}": write(place / f"{kind}-{whole}", whole)
            for kind, (_, write) in KINDS.items() for whole in (False, True)}


@pytest.fixture
def make(folders):
    """A conditioner; another source than the encoder of its kind is given by name."""
    def build(kind, **options):
        with seeded(0, "reader"):
            return KINDS[kind][0](WIDTH, **{"source": str(folders[kind]), "max_tokens": 40, **options})

    return build


@pytest.fixture(params=KINDS)
def reader(make, request):
    return make(request.param)


def reference(folder, text):
    """What transformers itself makes of a text."""
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

    network = (T5EncoderModel if "t5" in folder.name else CLIPTextModel).from_pretrained(folder).eval()
    with torch.no_grad():
        return network(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")).last_hidden_state[0]


@pytest.mark.parametrize("name", ["t5", "t5-whole", "clip", "clip-whole"])
def test_tokens_are_projected_features_of_the_last_layer(make, folders, name):
    reader = make(name.partition("-")[0], source=str(folders[name]))
    wanted = reference(folders[name], "a dog, too")
    tokens = reader(reader.prepare(["a dog, too"]))
    assert wanted.std() > 0.1 and tokens.valid.all()
    torch.testing.assert_close(tokens.values[0], reader.proj(reader.norm(wanted)), rtol=0, atol=1e-5)


def test_a_text_gives_the_same_tokens_alone_and_among_others(reader):
    prepared = reader.prepare(TEXTS)
    together = reader(prepared)
    assert prepared.device.type == together.valid.device.type == "cpu" and together.valid.shape == prepared.shape
    assert not together.values[~together.valid].any()
    for row, text in enumerate(TEXTS):
        alone = reader(reader.prepare([text]))
        assert together.valid[row].sum() == alone.valid.sum()
        torch.testing.assert_close(together.values[row, : alone.values.shape[1]], alone.values[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_batches_of_one_shape(make, monkeypatch, kind):
    """As on a GPU: texts of rounded lengths in batches that are filled up. The same numbers, whatever else is read."""
    exact = make(kind).encoder
    texts = [tuple(exact.ids(text)) for text in ("a dog", "another dog", "b dog", "c dog", "d dog", "a dog on its way home")]
    device = torch.device("cpu")
    wanted = exact.features(texts, device)
    monkeypatch.setattr(encoder, "ON_CPU", (3, 16))
    together = make(kind).encoder.features(texts, device)
    for text, features, close in zip(texts, together, wanted, strict=True):
        alone, = make(kind).encoder.features([text], device)
        assert torch.equal(alone, features)
        torch.testing.assert_close(features, close, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_features_whatever_else_is_read(reader):
    texts = [text for text in TEXTS if text] + [f"{number} dogs" for number in range(40)]
    on_cpu = reader(reader.prepare(texts))
    reader.to("cuda")
    together = reader(reader.prepare(texts))
    assert together.values.is_cuda and together.valid.device.type == "cpu"
    torch.testing.assert_close(together.values.cpu(), on_cpu.values, rtol=0, atol=1e-2)
    device = together.values.device
    for text in texts[:5]:
        ids = tuple(reader.encoder.ids(text))
        remembered, = reader.encoder.features([ids], device)
        alone, = pickle.loads(pickle.dumps(reader.encoder)).features([ids], device)
        assert torch.equal(alone, remembered)


def test_the_null_condition_needs_no_encoder(make, folders, tmp_path):
    source = shutil.copytree(folders["t5"], tmp_path / "t5")
    reader = make("t5", source=str(source))
    prepared = make("t5").prepare(["a dog", "cats"])
    shutil.rmtree(source)
    tokens = reader(reader.null(prepared, torch.tensor([True, True])))
    assert tokens.values.shape == (2, 6, WIDTH) and tokens.valid.sum(dim=1).tolist() == [1, 1]
    assert torch.equal(tokens.values[:, 0], reader.null_condition.expand(2, -1))


def test_only_projection_and_null_condition_are_trained_and_saved(reader):
    assert set(reader.state_dict()) == {"norm.weight", "norm.bias", "proj.weight", "proj.bias", "null_condition"}
    reader.train()
    tokens = reader(reader.prepare(["a dog", None]))
    tokens.values.square().mul(torch.arange(1, WIDTH + 1)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in reader.parameters())
    network = reader.encoder._network
    assert not network.training and not any(p.requires_grad or p.grad is not None for p in network.parameters())
    again = reader(reader.prepare(["a dog", None]))
    assert torch.equal(again.values, tokens.values)  # no dropout


def test_copies_share_the_encoder_and_other_processes_read_it_anew(reader):
    wanted = reader(reader.prepare(TEXTS)).values
    twin = copy.deepcopy(reader)
    assert twin.encoder is reader.encoder and twin.proj is not reader.proj
    content = pickle.dumps(reader)
    assert len(content) < 10_000
    other = pickle.loads(content)
    assert other.encoder is not reader.encoder
    torch.testing.assert_close(other(other.prepare(TEXTS)).values, wanted, rtol=0, atol=0)


def test_a_text_is_read_once_while_it_is_remembered(reader, monkeypatch):
    prepared = reader.prepare(["a dog", "a cat", "a dog"])
    wanted = reader(prepared).values
    seen = []
    reader.encoder._network.register_forward_hook(lambda *call: seen.append(call))
    assert torch.equal(reader(prepared).values, wanted) and not seen
    reader(reader.prepare(["a dog", "a cow", "a cow"]))
    assert len(seen) == 1
    size = 16 * 4 * (prepared.shape[1])
    monkeypatch.setattr(encoder, "MEMORY", 2 * size)
    reader(reader.prepare(["a pig"]))  # makes room: of the earlier ones, that which was needed last stays
    seen.clear()
    reader(reader.prepare(["a cow", "a pig"]))
    assert not seen and sum(features.nbytes for features in reader.encoder._remembered.values()) <= 2 * size
    assert torch.equal(reader(prepared).values, wanted) and len(seen) == 2


def test_what_a_preview_read_first_can_be_trained_on(reader):
    prepared = reader.prepare(["a dog"])
    with torch.inference_mode():
        reader(prepared)
    reader(prepared).values.sum().backward()
    assert reader.norm.weight.grad.isfinite().all()


def test_reading_draws_nothing_and_says_nothing(reader, capfd):
    state = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        read = reader(reader.prepare(["a dog"])).values
    assert torch.equal(torch.get_rng_state(), state) and capfd.readouterr() == ("", "")
    features, = reader.encoder.features([tuple(reader.prepare(["a dog"])[0].tolist())], torch.device("cpu"))
    assert features.dtype == torch.float32 and read.isfinite().all()


def test_a_lower_precision_is_close(make):
    exact, coarse = (make("t5", precision=precision) for precision in ("float32", "bfloat16"))
    one, other = (reader(reader.prepare(["a dog"])).values for reader in (exact, coarse))
    assert other.dtype == torch.float32 and 0 < (one - other).abs().max() < 0.1


def test_a_long_text_is_refused_or_cut(make):
    for kind in KINDS:
        with pytest.raises(ConditionError, match=r"'aaaa.* tokens; this model reads up to 10.*max_tokens"):
            make(kind, max_tokens=10).prepare(["a dog", "a" * 60])
        cut = make(kind, max_tokens=10, truncate=True).prepare(["a" * 60, "aa"])
        assert cut.shape == (2, 10) and cut[0, -1] == cut[1][cut[1] >= 0][-1]  # both end with the mark of the end


# Sources


def test_a_local_source_is_stored_absolute(folders, monkeypatch):
    monkeypatch.chdir(folders["t5"].parent)
    options = {"source": folders["t5"].name, "max_tokens": 8}
    assert T5Text.fitted(options, None) == {"source": str(folders["t5"]), "max_tokens": 8}
    assert T5Text.fitted({"source": "google-t5/t5-small"}, None) == {"source": "google-t5/t5-small"}


@pytest.mark.parametrize("source", ["no/such-encoder", "/no/such/folder", "nothing"])
def test_a_source_that_is_gone_is_named(source):
    with pytest.raises(CheckpointError, match=f"no text encoder '{source}'.*does not hold it"):
        T5Text(WIDTH, source=source)


@pytest.mark.parametrize(("kind", "other"), [("t5", "clip"), ("clip", "t5")])
def test_an_encoder_of_another_kind_is_refused(make, folders, kind, other):
    with pytest.raises(UsageError, match=r"is of the kind '\w+'; expected '"):
        make(kind, source=str(folders[other]))


@pytest.mark.parametrize(("kind", "max_tokens", "told"), [
    ("t5", 0, "max_tokens=0: expected at least 1"), ("clip", 41, "max_tokens=41: .* has places for 40"),
])
def test_a_length_that_cannot_be_is_refused(make, kind, max_tokens, told):
    with pytest.raises(UsageError, match=told):
        make(kind, max_tokens=max_tokens)


def test_without_transformers_it_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'djepa\[text\]'"):
        make("t5")


def remove(name):
    return lambda folder: (folder / name).unlink()


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def change_weights(change):
    def spoil(folder):
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})

    return spoil


def without_vocabulary(folder):
    """What is left of the tokenizer of most T5 when nothing but its settings was copied."""
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))


def with_code(folder):
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["own.Own", None]}}))
    (folder / "own.py").write_text("raise SystemExit('code was run')")


def small_network(folder):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 100}))
    change_weights(lambda tensors: {**tensors, "shared.weight": tensors["shared.weight"][:100].clone()})(folder)


@pytest.mark.parametrize(("spoil", "told"), [
    (remove("config.json"), "it has no config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json' is damaged"),
    (lambda folder: (folder / "config.json").write_text("[]"), "is of the kind None; expected 't5' or"),
    (remove("tokenizer_config.json"), "has no tokenizer: there is no tokenizer_config.json"),
    (without_vocabulary, "its vocabulary is missing"),
    (with_code, "The tokenizer of .* cannot"),
    (remove("model.safetensors"), "cannot be loaded .*Only safetensors are read"),
    (pickled, "cannot be loaded .*Only safetensors are read"),
    (cut_short, "cannot be loaded"),
    (change_weights(lambda tensors: {name: tensor for name, tensor in tensors.items() if "0.SelfAttention.q" not in name}),
     "not complete: there is no encoder.block.0.layer.0.SelfAttention.q.weight"),
    (change_weights(lambda tensors: {name: tensor[:5].clone() for name, tensor in tensors.items()}), "cannot be loaded"),
    (small_network, "belongs to another encoder"),
])
def test_a_damaged_source_is_refused_by_name(make, folders, tmp_path, capfd, untouched, spoil, told):
    source = shutil.copytree(folders["t5"], tmp_path / "spoilt")
    spoil(source)
    with pytest.raises((CheckpointError, UsageError), match=told) as caught:
        reader = make("t5", source=str(source))
        reader(reader.prepare(["a dog"]))
    assert str(source) in str(caught.value) and "\n" not in str(caught.value) and capfd.readouterr().err == ""


@pytest.fixture
def untouched():
    """Fails the test if torch's generator is another at its end."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)
