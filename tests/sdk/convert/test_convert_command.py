"""`djepa convert`."""

import json


def test_it_says_what_became_of_the_file(command, published, tmp_path):
    outcome = command("convert", published("mar"), tmp_path / "out")
    assert outcome.code == 0 and "mar, 88 tensors, all of them used" in outcome.out
    assert "optimizer (state of the training)" in outcome.out and "--tokenizer" in outcome.out
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_script_can_read_it(command, published, tmp_path):
    outcome = command("convert", published("djepa-flow"), tmp_path / "out", "--weights", "raw", "--json")
    told = json.loads(outcome.out)
    assert told["kind"] == "djepa" and told["sizes"]["head"] == "flow" and "model_ema" in told["dropped"]
    assert told["used"]["mask_token"] == ["streams.image.mask_token"]


def test_labels_come_from_a_file(command, published, tmp_path):
    (tmp_path / "labels.txt").write_text("katze\nhund\n\nkröte\n", encoding="utf-8")
    assert command("convert", published("mar"), tmp_path / "out", "--labels", tmp_path / "labels.txt").code == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model"]["conditions"]["label"]["names"] == ["katze", "hund", "kröte"]


def test_what_goes_wrong_is_one_paragraph(command, published, published_autoencoder, tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "text.pth").write_text("text")
    for arguments, words in [
        ((published("mar"), tmp_path / "out", "--kind", "djepa"), "holds mar"),
        ((published("mar"), tmp_path / "out", "--labels", tmp_path / "labels.txt"), "UTF-8"),
        ((published("mar"), tmp_path / "out", "--labels", tmp_path / "none.txt"), "none.txt"),
        ((tmp_path / "text.pth", tmp_path / "out"), "cannot be read as a checkpoint"),
        ((published_autoencoder, tmp_path / "out", "--kind", "mar"), "holds kl16"),
    ]:
        outcome = command("convert", *arguments)
        assert outcome.code == 2 and words in outcome.error()
        assert not (tmp_path / "out").exists()
