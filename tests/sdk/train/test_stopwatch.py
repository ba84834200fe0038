"""Where the time goes."""

import time

from djepa.train.stopwatch import PARTS, Stopwatch


def test_parts_and_the_rest_are_all_the_time():
    watch, begin = Stopwatch(), time.perf_counter()
    for _ in range(2):
        with watch("forward"):
            time.sleep(0.02)
    with watch("data"):
        time.sleep(0.01)
    time.sleep(0.03)
    seconds = watch.lap()
    assert set(seconds) == {*PARTS, "other", "step"}
    assert seconds["forward"] >= 0.04 and seconds["data"] >= 0.01 and seconds["other"] >= 0.03 and seconds["save"] == 0
    assert sum(seconds.values()) - 2 * seconds["step"] < 1e-9 and seconds["step"] <= time.perf_counter() - begin


def test_a_lap_starts_anew():
    watch = Stopwatch()
    with watch("forward"):
        time.sleep(0.02)
    watch.lap()
    assert watch.lap()["forward"] == 0


def test_what_fails_takes_time_too():
    watch = Stopwatch()
    try:
        with watch("data"):
            time.sleep(0.01)
            raise ValueError
    except ValueError:
        pass
    assert watch.lap()["data"] >= 0.01
