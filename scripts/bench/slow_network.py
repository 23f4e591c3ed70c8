"""A network that is as slow as asked for, between a client and a server on this machine: passes connections on."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

PIECE = 256 << 10


class Line:
    """What all connections share in one direction: so many bytes in a second. Without a rate, there is no limit."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.lock = threading.Lock()
        self.ready = 0.0

    def carry(self, count: int) -> None:
        """Wait until the line has carried so many bytes."""
        if self.rate:
            with self.lock:
                self.ready = max(self.ready, time.monotonic()) + count / self.rate
                until = self.ready
            time.sleep(max(0.0, until - time.monotonic()))


def pump(source: socket.socket, target: socket.socket, line: Line, delay: float) -> None:
    """Pass on what comes, over the line or after the delay, until either end closes."""
    buffer = memoryview(bytearray(PIECE))
    with contextlib.suppress(OSError):
        while count := source.recv_into(buffer):
            line.carry(count)
            time.sleep(delay)
            target.sendall(buffer[:count])
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """slow_network PORT SERVER_PORT BYTES_A_SECOND SECONDS_A_REQUEST, until it is killed. A rate of 0 is no limit."""
    port, upstream, rate, delay = (float(word) for word in sys.argv[1:])
    out, back = Line(rate), Line(rate)
    with socket.create_server(("127.0.0.1", int(port)), backlog=256) as listener:
        while True:
            client = listener.accept()[0]
            server = socket.create_connection(("127.0.0.1", int(upstream)))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for ends in ((client, server, out, delay), (server, client, back, 0.0)):
                threading.Thread(target=pump, args=ends, daemon=True).start()


if __name__ == "__main__":
    main()
