"""How far a command has come, in lines for a file: a line per stage, and one at least every 30 seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

Told = Callable[[str, int, int], None]
"""Called as told(stage, done, total)."""
EVERY = 30.0
"""Seconds within which something is said."""


@runtime_checkable
class Pause(Protocol):
    """What the heartbeat sleeps on: `threading.Event`, or a clock of a test's own."""

    def wait(self, timeout: float) -> bool: ...
    def set(self) -> None: ...


@contextmanager
def lines(
    begin: str = "",
    plan: Mapping[str, str] | None = None,
    *,
    write: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Pause | None = None,
) -> Iterator[Told]:
    """Lines on standard error: one where a stage begins, one where it ends, and at least one in `EVERY` seconds.

    A thread sees to the last, also where nothing calls; it ends with the context, and prints nothing after it.
    """
    log = Log(write or _written, clock, plan or {})
    pause = pause or threading.Event()

    def beat() -> None:
        while not pause.wait(1.0):
            log.beat()

    if begin:
        log.say(begin)
    heart = threading.Thread(target=beat, name="progress", daemon=True)
    heart.start()
    try:
        yield log.update
    finally:
        pause.set()
        heart.join()
    log.close()


def _written(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass
class Stage:
    """A stage under way: when it began, where it was when its pace was first taken, and where it is now."""

    began: float
    base: tuple[float, int]
    done: int
    total: int
    at: float
    paced: bool = False

    def left(self, now: float) -> float | None:
        """Seconds to go at the pace so far; None before a unit of work has been measured."""
        since, first = self.base
        worked = self.done - first
        if worked <= 0:
            return None
        return max(0.0, (self.at - since) / worked * (self.total - self.done) - (now - self.at))


@dataclass
class Log:
    """What the lines say, and when."""

    write: Callable[[str], None]
    clock: Callable[[], float]
    plan: Mapping[str, str]
    open: dict[str, Stage] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    lock: Any = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.said = self.last = self.clock()
        self.current: str | None = None
        self.after: str | None = None

    def say(self, line: str) -> None:
        with self.lock:
            self.write(line)
            self.said = self.clock()

    def update(self, name: str, done: int, total: int) -> None:
        """The callback: a stage has done so much of all."""
        with self.lock:
            now = self.clock()
            stage = self.open.get(name)
            if stage is None or done < stage.done:
                self.open[name] = stage = self._begin(name, done, total, now)
            else:
                stage.done, stage.total, stage.at = done, total, now
                # The first pace is worth a line; a stage that has come up before, or is over, has none.
                if not stage.paced and stage.left(now) is not None and name not in self.ended:
                    stage.paced = True
                    if done < total:
                        self.say(self._state(name, now))
            self.current, self.last = name, now
            if done >= total:
                self._end(name)
            self.beat()

    def _begin(self, name: str, done: int, total: int, now: float) -> Stage:
        if name not in self.ended and done < total:
            what = self.plan.get(name, f"{total:,} to do")
            self.say(f"{name}: {what}" + (f"; {done:,} of {total:,} done" if done else ""))
        # Where the first call comes after the first unit, the stage began when the one before last said something.
        return Stage(now if done == 0 else self.last, (now, done), done, total, now)

    def _end(self, name: str) -> None:
        stage = self.open.pop(name)
        self.current, self.after = None if self.current == name else self.current, name
        # A stage that comes again and again (of every query of several) ends in silence after its first time.
        if name not in self.ended:
            self.ended.add(name)
            took = span(stage.at - stage.began)
            self.say(f"{name}: {stage.done:,} of {stage.total:,} in {took}")

    def beat(self) -> None:
        """A line, if none has been written for `EVERY` seconds."""
        with self.lock:
            now = self.clock()
            if now - self.said < EVERY:
                return
            name = self.current or next(reversed(self.open), None)
            where = "starting" if self.after is None else f"after {self.after}"
            self.say(f"{where}: {span(now - self.last)} so far" if name is None else self._state(name, now))

    def close(self) -> None:
        """Ends what is under way, such as a probe that stopped early."""
        with self.lock:
            for name in list(self.open):
                self._end(name)

    def _state(self, name: str, now: float) -> str:
        stage = self.open[name]
        left = stage.left(now)
        rest = "" if left is None else f", about {roughly(left)} left"
        return f"{name}: {stage.done:,} of {stage.total:,} in {span(now - stage.began)}{rest}"


def span(seconds: float) -> str:
    """'0.4 s', '45 s', '2 min 13 s', '1 h 20 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def roughly(seconds: float) -> str:
    """As exact as a guess is: '5 s', '50 s', '2 min', '1 h 20 min'."""
    if seconds < 57.5:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    tens = 10 * round(minutes / 10)
    return f"{tens // 60} h {tens % 60} min" if tens % 60 else f"{tens // 60} h"
