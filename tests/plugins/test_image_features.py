"""Features of pictures by networks: small ones with drawn weights, saved as their libraries save them."""

import pytest
import torch

from djepa.errors import CheckpointError, UsageError
from djepa.random import seeded
from djepa.tokens import Sample
from djepa_image.encoder import ImageEncoder, TorchvisionClassifier
from djepa_image.modality import Image

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20, "image_size": 16,
         "patch_size": 4}


def pictures(num=3):
    return [Image().example(seed) for seed in range(num)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A DINOv2, a CLIP and a classifier, each with its preprocessor."""
    import transformers

    place = tmp_path_factory.mktemp("encoders")
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    vision = {**SMALL, "projection_dim": 6}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20}
    with seeded(0, "encoders"):
        networks = {
            "dinov2": transformers.Dinov2Model(transformers.Dinov2Config(**SMALL)),
            "clip": transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=6)),
            "vit": transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL, num_labels=7)),
        }
    for name, network in networks.items():
        network.eval().save_pretrained(place / name)
        processor.save_pretrained(place / name)
    return place, networks


def prepared(samples):
    return torch.cat([((sample.data + 1) / 2 - 0.5)[None] / 0.25 for sample in samples])


@torch.no_grad()
def test_a_vector_is_the_networks_own_summary(folders):
    place, networks = folders
    samples = pictures()
    found = ImageEncoder(source=str(place / "dinov2")).extract(samples)
    expected = networks["dinov2"](pixel_values=prepared(samples)).pooler_output
    assert found.logits is None
    torch.testing.assert_close(found.vectors, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_of_a_clip_it_is_the_embedding_of_its_tower(folders):
    place, networks = folders
    samples = pictures()
    found = ImageEncoder(source=str(place / "clip")).extract(samples).vectors
    clip = networks["clip"]
    expected = clip.visual_projection(clip.vision_model(pixel_values=prepared(samples)).pooler_output)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_classifier_gives_its_logits_too(folders):
    place, networks = folders
    samples = pictures()
    found = ImageEncoder(source=str(place / "vit")).extract(samples)
    output = networks["vit"](pixel_values=prepared(samples), output_hidden_states=True)
    torch.testing.assert_close(found.logits, output.logits, rtol=1e-4, atol=1e-4)
    body = networks["vit"].vit(pixel_values=prepared(samples)).last_hidden_state.mean(1)
    torch.testing.assert_close(found.vectors, body, rtol=1e-4, atol=1e-4)


def test_pictures_of_any_size_and_grey_ones_count(folders):
    extractor = ImageEncoder(source=str(folders[0] / "dinov2"))
    grey = Sample(pictures()[0].data[:1, :9, :12], {}, "image")
    together = extractor.extract([*pictures(2), grey]).vectors
    alone = extractor.extract([grey]).vectors
    torch.testing.assert_close(together[2:], alone, rtol=1e-4, atol=1e-5)
    colour = Sample(grey.data.expand(3, 9, 12), {}, "image")
    torch.testing.assert_close(extractor.extract([colour]).vectors, alone)


def test_a_folder_that_is_none_is_refused(folders, tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no config\.json"):
        ImageEncoder(source=str(tmp_path))
    place, networks = folders
    networks["dinov2"].save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"There is no preprocessor_config\.json"):
        ImageEncoder(source=str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_bytes((place / "dinov2" / "preprocessor_config.json").read_bytes())
    extractor, before = ImageEncoder(source=str(tmp_path)), ImageEncoder(source=str(tmp_path)).fingerprint()
    torch.save(networks["dinov2"].state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Only safetensors are read"):
        extractor.extract(pictures(1))
    assert extractor.fingerprint() != before


# torchvision.

@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    from torchvision.models import resnet18

    with seeded(0, "resnet"):
        network = resnet18(weights=None, num_classes=5).eval()
    path = tmp_path_factory.mktemp("resnet") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return network, path


@torch.no_grad()
def test_features_are_what_the_last_layer_of_a_classifier_is_given(resnet):
    from torchvision.models import ResNet18_Weights

    network, path = resnet
    samples = pictures(2)
    found = TorchvisionClassifier(model="resnet18", weights=str(path), num_classes=5).extract(samples)
    batch = ResNet18_Weights.DEFAULT.transforms()(torch.stack([(sample.data + 1) / 2 for sample in samples]))
    torch.testing.assert_close(found.logits, network(batch), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.fc(found.vectors), found.logits, rtol=1e-4, atol=1e-4)


def test_weights_come_from_safetensors_or_from_tensors_alone(resnet, tmp_path):
    from safetensors.torch import save_file

    network, path = resnet
    save_file(network.state_dict(), tmp_path / "resnet18.safetensors")
    both = [TorchvisionClassifier(model="resnet18", weights=str(file), num_classes=5)
            for file in (path, tmp_path / "resnet18.safetensors")]
    assert torch.equal(*(extractor.extract(pictures(1)).vectors for extractor in both))
    torch.save(network, tmp_path / "whole.pth")  # a pickled module, which is code
    with pytest.raises(CheckpointError, match="damaged, or no state dict"):
        TorchvisionClassifier(model="resnet18", weights=str(tmp_path / "whole.pth"), num_classes=5)


@pytest.mark.parametrize(("options", "error", "said"), [
    ({"model": "resnet81"}, UsageError, "Did you mean 'resnet18'"),
    ({"model": "squeezenet1_0"}, UsageError, "does not end in a linear layer"),
    ({"model": "resnet34"}, CheckpointError, "does not hold the weights of 'resnet34'"),
    ({"model": "resnet18", "num_classes": 6}, CheckpointError, "with 6 classes"),
    ({"model": "resnet18", "weights": "missing.pth"}, CheckpointError, "There is no file 'missing.pth'"),
])
def test_what_does_not_fit_is_said(resnet, options, error, said):
    with pytest.raises(error, match=said):
        TorchvisionClassifier(**{"weights": str(resnet[1]), "num_classes": 5, **options})
