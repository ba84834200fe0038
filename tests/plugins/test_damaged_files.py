"""Files of every kind that are corrupt, empty, mislabelled or cut short: a run stops and names them, or lists them all."""

import json

import pytest

from djepa import Recipe, Trainer
from djepa.errors import MediaError
from djepa.plugins import host

KINDS = {  # by modality: the extension, settings of the folder's dataset, the tokenizer
    "image": ("png", {"size": 16}, {"kind": "patchify", "patch": 8}),
    "video": ("mp4", {"size": 16, "num_frames": 4}, {"kind": "patchify", "patch": {"t": 2, "y": 8, "x": 8}}),
    "audio": ("flac", {"seconds": 0.1, "sample_rate": 8000}, {"kind": "patchify", "patch": 100}),
}
DAMAGES = {  # what a message says of it; an MP4 that is cut short has lost the table at its end
    "corrupt": "damaged or cut short", "empty": r"empty \(0 bytes\)", "mislabelled": "of a known kind",
    "truncated": "cut short|holds no video",
}
NUM_SOUND = 8


def damaged(kind, damage, content):
    """What is left of a file."""
    if damage == "corrupt":  # wiped in the middle
        middle, width = len(content) // 2, max(8, len(content) // 8)
        return content[:middle] + bytes(width) + content[middle + width :]
    return {"empty": b"", "truncated": content[: len(content) * 2 // 3],
            "mislabelled": b"%PDF-1.7\n" + b"1 0 obj << /Type /Catalog >> endobj\n" * 40}[damage]


@pytest.fixture
def folder(tmp_path):
    """Sound files of a kind, and one of each of the damages."""
    def make(kind, *damages):
        modality, extension = host().get("modality", kind)(), KINDS[kind][0]
        for number in range(NUM_SOUND):
            modality.save(modality.example(number), tmp_path / "files" / f"{number}.{extension}")
        for damage in damages:
            content = (tmp_path / "files" / f"0.{extension}").read_bytes()
            (tmp_path / "files" / f"{damage}.{extension}").write_bytes(damaged(kind, damage, content))
        return tmp_path / "files"

    return make


def recipe(kind, root, on_error):
    _, options, tokenizer = KINDS[kind]
    return Recipe.from_dict({
        "schema_version": 1,
        "data": {"kind": f"{kind}-folder", "root": str(root), **options},
        "model": {"streams": {kind: {"modality": kind, "tokenizer": tokenizer,
                                     "head": {"kind": "flow", "depth": 1, "width": 8}}}, "width": 16, "num_heads": 2,
                  "encoder_depth": 1, "predictor_depth": 1},
        "train": {"steps": 3, "batch_size": 4, "log_every": 1, "on_error": on_error}, "preview": {"every": 0},
    })


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stops_and_names_the_file(folder, tmp_path, kind, damage):
    root = folder(kind, damage)
    with pytest.raises(MediaError, match=rf"{damage}\.{KINDS[kind][0]}'.*({DAMAGES[damage]})"):
        Trainer(recipe(kind, root, "raise"), device="cpu").fit(tmp_path / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_and_lists_and_counts_them(folder, tmp_path, kind):
    root = folder(kind, *DAMAGES)
    Trainer(recipe(kind, root, "skip"), device="cpu").fit(tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    reasons = [record["reason"] for record in records if record.get("event") == "left_out"]
    assert len(reasons) == len(DAMAGES)
    for damage in DAMAGES:
        assert sum(f"{damage}.{KINDS[kind][0]}" in reason for reason in reasons) == 1
    assert [record["left_out"] for record in records if "loss" in record] == [len(DAMAGES)] * 3
