"""What a run says about itself."""

import json
import math

import pytest

from djepa.errors import StorageError
from djepa.train.log import RunLog


def strict(line):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(line, parse_constant=refuse)


def records(path):
    return [strict(line) for line in path.read_text().splitlines()]


def test_a_record_is_a_line_of_json_at_once(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path, 0, 3)
    log.record(1, {"loss": 0.5, "lr": 1e-3})
    log.event(2, "skipped", reason="why not")
    assert records(path) == [{"step": 1, "loss": 0.5, "lr": 1e-3}, {"step": 2, "event": "skipped", "reason": "why not"}]
    log.close()


def test_what_is_no_number_is_null(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", 0, 3)
    log.record(1, {"loss": math.nan, "grad_norm": math.inf, "lr": 0.1})
    log.close()
    assert records(tmp_path / "log.jsonl") == [{"step": 1, "loss": None, "grad_norm": None, "lr": 0.1}]


def test_records_that_will_be_made_again_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "event": "x"}\n{"step": 3}\n{"step": 4, "lo')
    log = RunLog(path, 2, 9)
    assert records(path) == [{"step": 1}, {"step": 2}, {"step": 2, "event": "x"}]
    log.record(3, {"loss": 1.0})
    log.close()
    assert [record["step"] for record in records(path)] == [1, 2, 2, 3]


@pytest.mark.parametrize("torn", [b"\xff\xfe\n", b"\0\0\0\0", b"[]\n", b'{"step": "one"}\n', b'{"step": null}\n', b"\n", b'"'])
def test_a_torn_log_goes_on(tmp_path, torn):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n' + torn)
    RunLog(path, 5, 9).close()
    assert records(path) == [{"step": 1}]


def test_where_there_is_no_terminal_it_prints_plain_lines(tmp_path, capsys):
    log = RunLog(tmp_path / "log.jsonl", 0, 20)
    log.record(10, {"loss": 0.123456, "image/mse": 3.0, "samples_per_second": 1234.5})
    log.advance()
    log.close()
    assert capsys.readouterr() == ("", "step 10/20 loss 0.123 samples_per_second 1.23e+03\n")


def test_a_full_disk_stops_the_run_with_a_reason(small_disk):
    disk = small_disk(16)
    log = RunLog(disk / "log.jsonl", 0, 10_000)
    with pytest.raises(StorageError, match=r"No space left on device.*djepa resume"):
        for step in range(1000):
            log.event(step, "x" * 100)
    log.close()
    assert [record["step"] for record in map(strict, (disk / "log.jsonl").read_text().splitlines()[:-1])]


def test_a_log_that_cannot_be_opened_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"log\.jsonl"):
        RunLog(tmp_path / "file" / "log.jsonl", 0, 1)
