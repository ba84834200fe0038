"""A recipe with several mistakes: all of them at once, at once."""

import time

import pytest

MISTAKES = """\
extends: image/digits
train:
  stpes: 500                       # an unknown key
  batch_size: many                 # a wrong type
  ema_decay: 1.5                   # out of range
  mask: {kind: truncated-normal, low: 0.9, high: 0.8}   # one field against another
model:
  streams:
    image:
      head: {kind: gausian}        # an unknown kind
"""
EXPECTED = [
    "train.stpes : unknown key - did you mean 'steps'?",
    "train.batch_size : expected a whole number, got 'many'",
    "train.ema_decay : expected a number of at most 1.0, got 1.5",
    "train.mask : low=0.9 must be below high=0.8",
    "model.streams.image.head.kind : No head 'gausian'. Did you mean 'gaussian'? Known: flow, gaussian.",
]
LISTING = "import sys\nfrom djepa.cli import main\ntry:\n    main()\nfinally:\n    print(sorted(sys.modules))"


@pytest.fixture
def mistaken(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MISTAKES)
    return path


@pytest.mark.parametrize("words", [["recipes", "validate"], ["train"], ["recipes", "show", "--resolved"]], ids=" ".join)
def test_all_five_mistakes_come_at_once_before_anything_is_loaded(process, mistaken, words):
    started = time.perf_counter()
    outcome = process(*words, mistaken, code=LISTING)
    assert time.perf_counter() - started < 3
    assert outcome.code == 2 and "has 5 problems" in outcome.error()
    lines = {line.strip() for line in outcome.err.splitlines()}
    assert {f"{line} (given in {mistaken})" for line in EXPECTED} <= lines
    assert len(lines) == 6
    assert "'torch'" not in outcome.out and "'djepa.heads'" not in outcome.out and "'pydantic'" in outcome.out
