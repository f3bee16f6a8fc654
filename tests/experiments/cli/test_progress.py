"""Progress without a terminal: lines by an injected clock, and a heartbeat that ends with its context."""

from __future__ import annotations

import io
import sys
import threading
from queue import Queue

import pytest

from experiments.cli import progress as module
from experiments.cli.lines import EVERY, Log, lines, roughly, span
from experiments.cli.progress import progress


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Beats:
    """A pause that ends when the test says so; `set` ends the thread, as an event's does."""

    def __init__(self) -> None:
        self.queue: Queue[bool] = Queue()
        self.beaten = threading.Semaphore(0)
        self.waits = 0

    def wait(self, timeout: float) -> bool:
        if self.waits:
            self.beaten.release()  # the beat after the wait before is over
        self.waits += 1
        return self.queue.get()

    def set(self) -> None:
        self.queue.put(True)

    def beat(self) -> None:
        self.queue.put(False)
        self.beaten.acquire()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def log_of(clock: Clock, **plan: str) -> tuple[Log, list[str]]:
    said: list[str] = []
    return Log(said.append, clock, plan), said


def test_a_stage_says_its_size_its_pace_and_its_time(clock: Clock) -> None:
    log, said = log_of(clock, train="80 rounds x 32 replicas")
    log.update("train", 0, 80)
    assert said == ["train: 80 rounds x 32 replicas"]
    clock.now += 1.5
    log.update("train", 1, 80)
    assert said[1:] == ["train: 1 of 80 in 1.5 s, about 2 min left"], "79 rounds of 1.5 s are 118 s"
    for done in range(2, 81):
        clock.now += 1.5
        log.update("train", done, 80)
    regular, last = said[2:-1], said[-1]
    assert len(regular) == 3 and regular[0] == "train: 21 of 80 in 32 s, about 1 min left"
    assert last == "train: 80 of 80 in 2 min 0 s"


def test_no_thirty_seconds_pass_without_a_line_whoever_calls(clock: Clock) -> None:
    """A stage that calls every 7 s, and the heartbeat every second: no gap between lines is above 30 s + one beat."""
    times: list[float] = []
    log = Log(lambda line: times.append(clock.now), clock, {})
    for second in range(600):
        clock.now += 1
        log.beat()
        if second % 7 == 0:
            log.update("simulate", second // 7, 100)
    gaps = [b - a for a, b in zip([1000.0, *times], [*times, clock.now], strict=True)]
    assert max(gaps) <= EVERY + 1 and len(times) <= 600 / EVERY + 4


def test_a_resumed_stage_is_not_taken_for_a_quick_one(clock: Clock) -> None:
    """40 rounds that were there already say nothing of the pace; the 41st does."""
    log, said = log_of(clock, train="80 rounds")
    clock.now += 3
    log.update("train", 40, 80)
    assert said == ["train: 80 rounds; 40 of 80 done"]
    clock.now += 60
    log.update("train", 41, 80)
    assert said[-1] == "train: 41 of 80 in 1 min 3 s, about 39 min left"


def test_a_stage_first_heard_of_after_its_first_unit_began_when_the_one_before_ended(clock: Clock) -> None:
    log, said = log_of(clock)
    clock.now += 5
    log.update("rollouts", 2048, 2048)
    clock.now += 7
    log.update("simulate", 1, 1)
    assert said == ["rollouts: 2,048 of 2,048 in 5.0 s", "simulate: 1 of 1 in 7.0 s"]


def test_silence_names_the_stage_it_is_in(clock: Clock) -> None:
    log, said = log_of(clock)
    clock.now += 31
    log.beat()
    log.update("scores", 1, 1)
    clock.now += 40
    log.beat()
    log.update("train", 0, 9)
    clock.now += 30
    log.beat()
    assert said == [
        "starting: 31 s so far", "scores: 1 of 1 in 31 s", "after scores: 40 s so far", "train: 9 to do",
        "train: 0 of 9 in 30 s",
    ]  # fmt: skip


def test_a_probe_that_stops_early_ends_with_its_context(clock: Clock) -> None:
    log, said = log_of(clock)
    log.update("rollouts", 0, 2048)
    clock.now += 2
    log.update("rollouts", 256, 2048)
    clock.now += 50  # of something else, which is not the stage's time
    log.close()
    assert said[-1] == "rollouts: 256 of 2,048 in 2.0 s"


def test_a_stage_that_returns_for_each_of_many_queries_is_told_once(clock: Clock) -> None:
    log, said = log_of(clock)
    for query in range(12):
        for done in (0, 1, 2):
            clock.now += 0.1
            log.update("scores", done, 2)
        log.update("probe", query + 1, 12)
    assert len([line for line in said if line.startswith("scores")]) == 3
    assert said[-1].startswith("probe: 12 of 12")


def test_the_heartbeat_prints_while_nothing_calls_and_never_after(clock: Clock) -> None:
    said: list[str] = []
    beats = Beats()
    before = set(threading.enumerate())
    with lines("overlay: all of it", write=said.append, clock=clock, pause=beats) as told:
        told("train", 0, 80)
        (heart,) = set(threading.enumerate()) - before
        clock.now += EVERY - 1
        beats.beat()
        assert said == ["overlay: all of it", "train: 80 to do"]
        clock.now += 1
        beats.beat()
        assert said[2:] == ["train: 0 of 80 in 30 s"]
        told("train", 80, 80)
    assert not heart.is_alive()
    count = len(said)
    clock.now += 1000
    assert len(said) == count == 4


def test_the_heartbeat_ends_with_an_error_too(clock: Clock) -> None:
    said: list[str] = []
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError), lines(write=said.append, clock=clock) as told:
        told("train", 1, 80)
        raise RuntimeError("broken")
    assert set(threading.enumerate()) == before
    assert said == ["train: 80 to do; 1 of 80 done"], "nothing claims that the stage has ended"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("as_json", [False, True])
def test_a_file_gets_lines_with_and_without_json(
    as_json: bool, capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with progress(as_json, "train: 8 rounds", {"train": "8 rounds"}) as told:
        told("train", 8, 8)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[0] == "train: 8 rounds" and said.err.splitlines()[1].startswith(
        "train: 8 of 8"
    )


@pytest.mark.parametrize(("as_json", "shown"), [(False, True), (True, False)])
def test_a_terminal_gets_bars_and_with_json_nothing(
    as_json: bool, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(module, "lines", None)
    with progress(as_json, "train: 8 rounds") as told:
        told("train [red]", 8, 8)
    assert ("train [red]" in screen.getvalue()) == shown == ("8/8" in screen.getvalue())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0.04, "0.0 s", "5 s"),
        (9.94, "9.9 s", "10 s"),
        (47.2, "47 s", "45 s"),
        (59.6, "1 min 0 s", "1 min"),
        (133, "2 min 13 s", "2 min"),
        (3599.8, "1 h 0 min", "1 h"),
        (4790, "1 h 20 min", "1 h 20 min"),
    ],
)
def test_times_as_people_say_them(seconds: float, exact: str, rough: str) -> None:
    assert (span(seconds), roughly(seconds)) == (exact, rough)
