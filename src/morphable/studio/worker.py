"""Newest: one thread that does what a page asks for, and only the newest of what is alike."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Hashable

from morphable.errors import InputError

Action = Callable[[], None]


class Newest:
    """Runs actions one after another in a thread of its own.

    An action replaces one of the same key that has not begun, so a slider that is pulled faster
    than the model decodes shows its newest value, and no queue grows. Actions of different keys
    keep their order. `idle` runs whenever nothing else waits, for what may lag behind.

    refused: gets the sentence of an InputError. failed: gets any other error, so that one bad
    request ends neither the thread nor the page.
    """

    def __init__(
        self,
        refused: Callable[[str], None],
        failed: Callable[[str], None],
        idle: Action = lambda: None,
    ) -> None:
        self._refused, self._failed, self._idle = refused, failed, idle
        self._waiting: dict[Hashable, Action] = {}
        self._changed = threading.Condition()
        self._busy = False
        self._open = True
        self._thread = threading.Thread(target=self._run, name="studio", daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, action: Action) -> None:
        with self._changed:
            # It goes to the end: what was asked for in between comes first, as a reset between two
            # pulls of a slider does.
            self._waiting.pop(key, None)
            self._waiting[key] = action
            self._changed.notify_all()

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait until everything is done. Returns False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._open:
                    return
                key = next(iter(self._waiting))
                action = self._waiting.pop(key)
                self._busy = True
            self._guarded(action)
            with self._changed:
                rest = not self._waiting
            if rest:
                self._guarded(self._idle)

    def _guarded(self, action: Action) -> None:
        try:
            action()
        except InputError as error:
            self._refused(str(error))
        except Exception as error:
            traceback.print_exc()
            self._failed(f"{type(error).__name__}: {error}")
