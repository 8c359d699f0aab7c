"""A way to a server that can be made to stall or to end."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 65_536


class FaultyWay:
    """Forwards connections of a port of its own to another one of this machine."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._flowing = threading.Event()
        self._flowing.set()
        self._open = True
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Let nothing through, and refuse nothing either."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """End all connections, and new ones at once."""
        self._open = False
        for connection in [*self._connections]:
            _end(connection)
        try:
            yield
        finally:
            self._open = True

    def close(self) -> None:
        self._listener.close()
        for connection in [*self._connections]:
            _end(connection)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                caller.close()
                continue
            server = socket.create_connection(self._target)
            self._connections |= {caller, server}
            for source, target in ((caller, server), (server, caller)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                self._flowing.wait()
                target.sendall(chunk)
        _end(source)
        _end(target)
        self._connections -= {source, target}


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
