"""The extractors of the core: the values themselves, and the network of a TorchScript file."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from djepa import Sample
from djepa.errors import CheckpointError, UsageError
from djepa.evaluate.torchscript import TRUSTED, TorchScript
from djepa.evaluate.values import MAX_VALUES, Values
from djepa.random import Draws


def samples(*shape, num=3):
    drawn = Draws(0, "samples").uniform(torch.arange(num), 0, torch.Size(shape).numel()) * 2 - 1
    return [Sample(row.view(shape), {}, "any") for row in drawn]


def test_values_are_those_of_the_sample():
    given = samples(2, 3, 4)
    found = Values().extract(given)
    assert found.logits is None and torch.equal(found.vectors, torch.stack([sample.data.flatten() for sample in given]))


def test_values_of_large_or_various_samples_are_refused():
    with pytest.raises(UsageError, match=f"at most {MAX_VALUES:,} values; these have 4,097"):
        Values().extract(samples(1, 4097))
    with pytest.raises(UsageError, match=r"\(1, 4\) and \(1, 5\)"):
        Values().extract([*samples(1, 4), *samples(1, 5)])


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor, logits: bool = False):
        means = x.float().mean((2, 3))
        found = self.layer(means)
        return (found, means) if logits else (found, found)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "network.pt"
    network = Network()
    with torch.no_grad():
        network.layer.weight.copy_(torch.arange(15.0).view(5, 3))
        network.layer.bias.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(path)
    return path


@pytest.fixture
def trusted(file, monkeypatch):
    monkeypatch.setenv(TRUSTED, f"/elsewhere/other.pt:{file}")
    return str(file)


def test_code_is_run_only_if_the_person_who_runs_it_named_the_file(file, monkeypatch):
    monkeypatch.delenv(TRUSTED, raising=False)
    with pytest.raises(UsageError, match=f"is code, which would be executed.*--torchscript .*{TRUSTED}="):
        TorchScript(path=str(file))
    monkeypatch.setenv(TRUSTED, str(file.parent))  # the file itself, not its folder
    with pytest.raises(UsageError, match="is code"):
        TorchScript(path=str(file))


def test_a_network_is_handed_samples_as_it_wants_them(trusted):
    given = samples(1, 4, 6)
    found = TorchScript(path=trusted, channels=3, arguments={"logits": True}).extract(given)
    means = torch.stack([sample.data.mean().expand(3) for sample in given])
    torch.testing.assert_close(found.logits, means)
    torch.testing.assert_close(found.vectors, means @ torch.arange(15.0).view(5, 3).T)

    in_bytes = TorchScript(path=trusted, channels=3, levels="bytes", arguments={"logits": True}).extract(given)
    torch.testing.assert_close(in_bytes.logits, (means + 1) * 127.5, atol=0.5, rtol=0)

    resized = TorchScript(path=trusted, size=(2, 2), arguments={"logits": True}).extract(samples(3, 9, 7))
    batch = torch.stack([sample.data for sample in samples(3, 9, 7)])
    expected = functional.interpolate(batch, (2, 2), mode="bilinear", antialias=True).mean((2, 3))
    torch.testing.assert_close(resized.logits, expected)


def test_a_clip_is_resized_frame_by_frame(trusted):
    extractor = TorchScript(path=trusted, size=(2, 3))
    clips = torch.stack([sample.data for sample in samples(3, 4, 8, 9)])
    frames = [functional.interpolate(clips[:, :, time], (2, 3), mode="bilinear", antialias=True) for time in range(4)]
    torch.testing.assert_close(extractor._prepared(clips), torch.stack(frames, dim=2))


def test_what_a_network_or_a_file_is_not_is_said(trusted, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"does not take samples of shape \(1, 4, 6\)"):
        TorchScript(path=trusted).extract(samples(1, 4, 6))
    with pytest.raises(UsageError, match="have no height and width"):
        TorchScript(path=trusted, size=(2, 2)).extract(samples(3, 40))
    with pytest.raises(CheckpointError, match="There is no TorchScript file"):
        TorchScript(path=str(tmp_path / "missing.pt"))
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"no archive")
    monkeypatch.setenv(TRUSTED, str(damaged))
    with pytest.raises(CheckpointError, match="damaged or no TorchScript file"):
        TorchScript(path=str(damaged)).extract(samples(3, 4, 4))


def test_other_weights_have_another_fingerprint(trusted, tmp_path, monkeypatch):
    other = tmp_path / "other.pt"
    other.write_bytes(b"other")
    monkeypatch.setenv(TRUSTED, f"{trusted}:{other}")
    assert TorchScript(path=trusted).fingerprint() != TorchScript(path=str(other)).fingerprint()


def test_the_command_trusts_the_file_it_is_given_in_all_its_processes(command, monkeypatch, trained, file, tmp_path):
    asked = ("evaluate", trained, "image/digits", "evaluate.num_groups=0", "evaluate.features.channels=3", "-o", tmp_path / "f",
             "evaluate.num_real=70", "-n", 70, "--metrics", "kernel", "--device", "cpu", "--nproc", 2)
    monkeypatch.setenv(TRUSTED, "")
    refused = command(*asked, "--features", "torchscript", f"evaluate.features.path={file}")
    assert refused.code == 2 and "is code, which would be executed" in refused.error()
    done = command(*asked, "--torchscript", file)
    assert done.code == 0 and "5 features of torchscript" in done.out, done.err
