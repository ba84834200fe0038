"""The corpus check reads everything, survives everything, and says what is wrong with what."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from djepa.corpus import check_corpus
from djepa.dataset import Dataset, Example
from djepa.errors import MediaError, UsageError
from djepa.tokens import Sample

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def pictures(tmp_path):
    """Pictures of two classes; one is empty, one cut short."""
    rng = np.random.default_rng(0)
    for number in range(9):
        path = tmp_path / "pictures" / ("cats" if number % 2 else "ants") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (tmp_path / "pictures/ants/0.png").write_bytes(b"")
    short = tmp_path / "pictures/cats/7.png"
    short.write_bytes(short.read_bytes()[:120])
    return tmp_path / "pictures"


def test_the_command_lists_what_cannot_be_read(pictures, command):
    arguments = ["data", "check", "image/folder", f"data.root={pictures}", "data.size=8", "--workers", "2"]
    done = command(*arguments)
    assert done.code == 1 and "Traceback" not in done.err
    lines = done.out.splitlines()
    assert lines[0] == "7 of 9 examples are sound."
    assert "ants/0.png" in lines[1] and "empty" in lines[1] and "cats/7.png" in lines[2] and "cut short" in lines[2]
    assert "image: smallest 64, quarter 64, median 64, three quarters 64, largest 64 (steps)" in lines
    assert "          7  3 x 8 x 8" in lines and "label: 2 classes" in lines and "          4  ants" in lines
    found = json.loads(command(*arguments, "--json").out)
    assert found["examples"] == 9 and [problem["example"] for problem in found["problems"]] == [0, 8]
    assert found["classes"] == {"label": {"ants": 4, "cats": 3}}
    assert found["streams"]["image"]["shapes"] == [{"shape": [3, 8, 8], "count": 7}]
    for path in ("ants/0.png", "cats/7.png"):
        (pictures / path).unlink()
    assert command(*arguments).code == 0


class Trouble(Dataset):
    """Everything that can be wrong with an example is wrong with one."""

    def __init__(self):
        self.trouble = {3: signal.pause, 5: lambda: os.kill(os.getpid(), signal.SIGKILL), 7: lambda: 1 // 0, 8: self.bad}

    @staticmethod
    def bad():
        raise MediaError("no picture")

    def __len__(self):
        return 200

    def load(self, index, rng=None):
        self.trouble.get(index, lambda: None)()
        data = torch.full((1, 1 + index % 4), float("nan") if index == 9 else 0.0)
        return Example({"line": Sample(data)}, {"label": "strange" if index == 10 else "ab"[index % 2]})

    def classes(self):
        return {"label": ["a", "b", "c"]}


@pytest.mark.parametrize("num_workers", [1, 3])
def test_nothing_stops_it(num_workers):
    done = []
    corpus = check_corpus(Trouble(), num_workers=num_workers, timeout=1.0, on_progress=done.append)
    reasons = {problem.example: problem.reason for problem in corpus.problems}
    assert set(reasons) == {3, 5, 7, 8, 9, 10} and corpus.num_examples == 200 and done == [64, 128, 192, 200]
    assert "not loaded within 1 seconds" in reasons[3] and "SIGKILL" in reasons[5] and "ZeroDivisionError" in reasons[7]
    assert reasons[8] == "no picture" and "not numbers" in reasons[9]
    assert reasons[10] == "label 'strange' is none of its classes"
    assert corpus.classes == {"label": {"a": 98, "b": 96, "c": 0}}
    assert sum(corpus.shapes["line"].values()) == 194
    assert corpus.sizes("line") == {"smallest": 1, "quarter": 1, "median": 2, "three_quarters": 3, "largest": 4}


def test_nobody_to_read_is_refused():
    with pytest.raises(UsageError, match="num_workers=0"):
        check_corpus(Trouble(), num_workers=0)
