"""Asked to stop, a training ends after its current update; asked again, at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Stop:
    """Listens to Ctrl-C and SIGTERM while it is open. `code` is what a process exits with that was told so."""

    def __init__(self) -> None:
        self.code = 0
        self._former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def __enter__(self) -> Stop:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._leave()

    def listen(self) -> None:
        """Again, where a library has put itself in between, as Ray does when it starts."""
        if not self.code:
            for number in self._former:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        self._leave()

    def _leave(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
