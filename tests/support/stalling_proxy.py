"""A TCP proxy whose connections can fall silent, as on a network that is cut: nothing is closed."""

import selectors
import socket
import threading
from types import TracebackType
from typing import Self

POLL_S = 0.02
READ_BYTES = 65536


class StallingProxy:
    """Passes bytes on to `target` ("tcp://HOST:PORT") until `cut` is set; they wait meanwhile."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ends: dict[socket.socket, socket.socket] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.cut = threading.Event()

    @property
    def endpoint(self) -> str:
        return "tcp://{}:{}".format(*self._listener.getsockname())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        for end in list(self._ends):
            end.close()
        self._listener.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            if self.cut.is_set():
                self._stop.wait(POLL_S)
                continue
            for key, _ in self._selector.select(POLL_S):
                if key.fileobj is self._listener:
                    self._join()
                elif key.fileobj in self._ends:
                    self._pass_on(key.fileobj)

    def _join(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target, timeout=1.0)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for one, other in ((near, far), (far, near)):
            self._ends[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        other = self._ends[end]
        try:
            data = end.recv(READ_BYTES)
            if data:
                other.sendall(data)
                return
        except OSError:
            data = b""
        for each in (end, other):
            self._selector.unregister(each)
            del self._ends[each]
            each.close()
