"""The HTTP parser of the server, bounded: uvicorn's fast one takes a request's head of any size."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Cuts connections whose request line and headers have not ended after `HEAD_BYTES_MAX`."""

    _head_bytes = 0
    _in_head = True

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head has ended."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what has come; bytes count while the head goes on after them."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.transport.close()
