"""A progress bar a layer, as `ollama pull` draws: on a terminal; sparse lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from modelpack.cli.talk import talk, warn
from modelpack.hands.answers import Event
from modelpack.words.blob import Blob
from modelpack.words.report import Note, Said, Stage, Step
from modelpack.words.text import size, visible

_EVERY = 30.0  # seconds between lines where no terminal is
_TICK = 0.4
_LAYERS = 64  # that are drawn: a server may name as many digests as it likes
_MOST = 1 << 62  # bytes: what a hostile server's number is cut to
_WIDTH = 12  # of a layer's name


@dataclass
class _Layer:
    """How much of a layer has moved, and its bar, once it is drawn."""

    total: int
    done: int = 0
    bar: Any = None


class Layers:
    """Draws events of pull and push, and (as a report, see `words.report`) the steps of a create.

    Nothing stays on the terminal. Any thread may tell of bytes.
    """

    def __init__(self, doing: str, *, quiet: bool = False) -> None:
        """*doing* is a word for what is done (`pulling`)."""
        self._doing, self._quiet = doing, quiet
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._layers: dict[str, _Layer] = {}
        self._status = doing
        self._line: Any = None
        self._stage = ""
        self._spoke = time.monotonic()
        self._left = threading.Event()

    def __enter__(self) -> Self:
        if not self._quiet:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._left.set()
        self.rest()

    def rest(self) -> None:
        """Clear the terminal: somebody else has it. What moves next is drawn again."""
        with self._lock:
            for layer in reversed(self._layers.values()):
                if layer.bar is not None:
                    layer.bar.close()
            if self._line is not None:
                self._line.close()
            self._layers.clear()
            self._line = None

    def event(self, event: Event) -> None:
        """What a server says of its own transfer."""
        if self._quiet:
            return
        with self._lock:
            if event.digest is None:
                self._status = visible(event.status)[:200]
            else:
                self._moved_to(event.digest, event.total or 0, event.completed or 0)

    def hear(self, blob: Blob, count: int) -> None:
        """*count* more bytes of *blob* left for the server."""
        self.add(str(blob.digest or blob), blob.size, count)

    def add(self, name: str, total: int, count: int) -> None:
        """*count* more of the *total* bytes of what is called *name* have moved."""
        if self._quiet:
            return
        with self._lock:
            known = self._layers.get(name)
            self._moved_to(name, total, (known.done if known else 0) + count)

    def say(self, status: str) -> None:
        """What is being done now."""
        with self._lock:
            self._status = visible(status)[:200]

    def __call__(self, step: Step) -> None:
        if isinstance(step, Note):
            self.rest()
            warn(step.text)
        elif isinstance(step, Said):
            self.say(step.text)
        elif isinstance(step, Stage):
            self.rest()
            self._stage = "" if step.doing == "copying" else step.doing  # each layer has a bar of its own
            self.say(step.doing)
            if self._stage:
                self.add(self._stage, step.total, 0)
        elif self._stage:
            with self._lock:
                total = self._layers[self._stage].total if self._stage in self._layers else 0
            self.add(self._stage, total, step.count)

    def _moved_to(self, name: str, total: int, done: int) -> None:
        layer = self._layers.get(name)
        if layer is None:
            if len(self._layers) >= _LAYERS:
                return
            layer = self._layers.setdefault(name, _Layer(0))
        layer.total = max(layer.total, min(max(total, 0), _MOST))
        layer.done = min(max(done, 0), _MOST)
        if layer.bar is not None:
            layer.bar.total = layer.total or None
            layer.bar.update(layer.done - layer.bar.n)

    def _tick(self) -> None:
        """Draw once work has gone on for a moment: what would vanish at once is not shown."""
        while not self._left.wait(_TICK):
            with self._lock:
                if self._left.is_set():
                    return
                if self._terminal:
                    self._draw()
                elif time.monotonic() - self._spoke > _EVERY:
                    self._speak()

    def _draw(self) -> None:
        from tqdm import tqdm

        if self._line is None:
            self._line = tqdm(
                bar_format="{desc}: {elapsed}", position=0, leave=False, file=sys.stderr, dynamic_ncols=True
            )
        self._line.set_description_str(self._status, refresh=False)
        self._line.refresh()
        for number, (name, layer) in enumerate(self._layers.items(), start=1):
            if layer.bar is None:
                layer.bar = tqdm(
                    total=layer.total or None,
                    initial=layer.done,
                    desc=_short(name),
                    unit="B",
                    unit_scale=True,
                    position=number,
                    leave=False,
                    file=sys.stderr,
                    dynamic_ncols=True,
                    mininterval=0.2,
                )
            elif layer.bar.n < layer.total:  # the clock of one that is whole stands still
                layer.bar.refresh()

    def _speak(self) -> None:
        done, total = (sum(getattr(one, key) for one in self._layers.values()) for key in ("done", "total"))
        moved = f"; {size(done)} of {size(total)}" if total else ""
        talk(f"{self._doing}: {self._status}{moved}")
        self._spoke = time.monotonic()


def _short(name: str) -> str:
    """The first digits of a digest; the end of another name."""
    text = visible(name.removeprefix("sha256:"))
    return text[:_WIDTH] if name.startswith("sha256:") else text[-_WIDTH:].rjust(_WIDTH)
