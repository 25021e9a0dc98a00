"""A bar on a terminal, sparse lines elsewhere: how much has arrived, how fast, how long it will take."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

from modelpack.cli.talk import talk, warn
from modelpack.words.report import Moved, Note, Said, Stage, Step
from modelpack.words.text import size, visible

_EVERY = 30.0  # seconds between lines where no terminal is
_DELAY = 0.4  # a bar that would vanish at once is not shown


class Progress:
    """A report (see `words.report`) that draws. Bytes are counted where they arrived."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._bar: Any = None
        self._doing, self._total, self._done = "", 0, 0
        self._began = self._spoke = time.monotonic()
        self._said = ""
        self._left = threading.Event()

    def __enter__(self) -> Self:
        if not self._quiet:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._left.set()
        with self._lock:
            self._close()

    def rest(self) -> None:
        """Draw nothing until the next stage: somebody else has the terminal."""
        with self._lock:
            self._close()
            self._doing = ""

    def __call__(self, step: Step) -> None:
        if isinstance(step, Note):
            self.rest()
            warn(step.text)
            return
        if self._quiet:
            return
        with self._lock:
            if isinstance(step, Stage):
                self._stage(step)
            elif isinstance(step, Moved):
                self._done += step.count
                if self._bar is not None:
                    self._bar.update(step.count)
                elif not self._terminal and time.monotonic() - self._spoke > _EVERY:
                    self._line()
            else:
                self._say(step)

    def _stage(self, stage: Stage) -> None:
        self._close()
        self._doing, self._total, self._done = stage.doing, stage.total, 0
        self._began = self._spoke = time.monotonic()

    def _say(self, said: Said) -> None:
        self._said = visible(said.text)
        if self._bar is not None:
            self._bar.set_postfix_str(self._said[:40], refresh=False)
        elif not self._terminal and time.monotonic() - self._spoke > _EVERY:
            self._line()

    def _tick(self) -> None:
        """Draw the bar once work has gone on for a moment, and keep its clock going in silence."""
        while not self._left.wait(_DELAY):
            with self._lock:
                if self._left.is_set():
                    return
                if self._terminal and self._bar is None and self._doing:
                    self._open()
                if self._bar is not None:
                    self._bar.refresh()
                elif not self._terminal and self._doing and time.monotonic() - self._spoke > _EVERY:
                    self._line()

    def _open(self) -> None:
        from tqdm import tqdm

        whole = self._done >= self._total
        self._bar = tqdm(
            total=self._total or None,
            initial=self._done,
            desc=self._doing,
            unit="B",
            unit_scale=True,
            leave=False,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.2,
            bar_format="{desc}: {elapsed}{postfix}" if whole else None,
        )
        self._bar.start_t -= time.monotonic() - self._began
        if self._said:
            self._bar.set_postfix_str(self._said[:40], refresh=False)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self) -> None:
        now = time.monotonic()
        rate = self._done / max(now - self._began, 0.001)
        left = (self._total - self._done) / rate if rate else 0
        share = f" ({100 * self._done // self._total} %)" if self._total else ""
        said = f"; {self._said}" if self._said else ""
        talk(
            f"{self._doing}: {size(self._done)} of {size(self._total)}{share}, {size(rate)}/s, "
            f"{left:.0f} s left{said}"
        )
        self._spoke = now
