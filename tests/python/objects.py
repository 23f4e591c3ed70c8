"""Object storage for tests: the server s3s-fs over a folder, moto, and a proxy that treats requests badly."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import object_server
import pytest
from harness import Program, wait_until
from object_server import MOTO, S3S_FS, free_port, s3s_fs, serving

ACCESS_KEY = "AKIDTESTS"
SECRET_KEY = "a-secret-that-nothing-prints"
BUCKET = "scans"
PIECE = 64 << 10
# What services answer where s3s-fs denies access: to requests about an upload that is over.
NO_SUCH_UPLOAD = b"<Error><Code>NoSuchUpload</Code><Message>it is over, or never was</Message></Error>"
# Requests of an upload, and those with a condition, are passed on one at a time: s3s-fs looks first and writes later,
# services do both at once.
ONE_AT_A_TIME: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def require_s3() -> None:
    """Skip where the servers are not installed."""
    for server in (S3S_FS, MOTO):
        if not server.exists():
            pytest.skip(f"{server.name} is not installed: scripts/setup.sh --s3")


def variables(port: int, **more: str) -> dict[str, str]:
    """The environment with credentials for a server at this port, and with nothing else that AWS clients read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    own = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    return kept | own | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"} | more


@dataclass(frozen=True)
class Shards:
    """Finished shards at an address, where the program takes a data set."""

    address: str

    def flags(self) -> list[str]:
        """The arguments that name them."""
        return ["--shards", self.address]


@dataclass
class Storage:
    """A bucket of s3s-fs: the folder that holds its objects, and the port of the server."""

    folder: Path
    port: int

    def put(self, source: Path, prefix: str) -> str:
        """Copy a folder of shards into the bucket; the address of the copy."""
        shutil.copytree(source, self.folder / BUCKET / prefix)
        return f"s3://{BUCKET}/{prefix}"

    def object(self, address: str) -> Path:
        """The file that holds an object."""
        return self.folder / address.removeprefix("s3://")


@contextlib.contextmanager
def storage(folder: Path, *, is_public: bool = False) -> Iterator[Storage]:
    """A bucket, empty if it was not there before. A public one is read without credentials, and only so."""
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    with s3s_fs(folder, None if is_public else (ACCESS_KEY, SECRET_KEY)) as port:
        yield Storage(folder, port)


def upload(port: int, source: Path, prefix: str) -> str:
    """Upload a folder of shards to a server; its address."""
    return object_server.upload(variables(port), source, BUCKET, prefix)


@contextlib.contextmanager
def moto(source: Path, prefix: str) -> Iterator[int]:
    """A server of another maker, with a folder of shards that Amazon's own client has uploaded; its port."""
    port = free_port()
    with serving(port, MOTO, "-H", "127.0.0.1", "-p", port):
        upload(port, source, prefix)
        yield port


@dataclass
class Faults:
    """How the proxy treats requests: each is asked with the request's path and range, and the number of the request."""

    status: Callable[[str, int], int] = lambda path, number: 0
    # Bytes of the answer's body after which the connection is cut; None for all.
    cut: Callable[[str, int], int | None] = lambda path, number: None
    tag: Callable[[str, int], str | None] = lambda path, number: None
    # Whether the connection is closed when the server has done what was asked, before the client hears of that.
    lost: Callable[[str, int], bool] = lambda path, number: False
    body: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    # The numbers of the requests that are to be done only if the object is as the client knows it.
    conditional: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, method: str, path: str, headers: Message) -> int:
        """Remember a request; its number, from 0 on."""
        with self.lock:
            number = len(self.requests)
            self.requests.append((method, path, headers.get("Range", "")))
            if headers.get("If-Match") or headers.get("If-None-Match"):
                self.conditional.add(number)
            return number

    def kind(self, number: int) -> str:
        """What a request is for, where a run writes into a bucket."""
        method, path, _ = self.requests[number]
        key, _, query = path.partition("?")
        if "uploadId=" in query:
            return {"PUT": "part", "POST": "complete", "DELETE": "abort"}.get(method, "read")
        if method == "POST":
            return "create" if query.startswith("uploads") else "delete"
        if method == "PUT":
            return "journal" if "/.ctwds/" in key else "manifest" if "/manifest" in key else "index"
        return "delete" if method == "DELETE" else "read"

    def kinds(self) -> list[str]:
        """The kind of each request."""
        return [self.kind(number) for number in range(len(self.requests))]


@dataclass
class Proxy:
    """A proxy, and how it treats requests from now on."""

    port: int
    faults: Faults
    going: set[int] = field(default_factory=set)  # threads that are busy with a request

    def settle(self) -> None:
        """Wait for the end of the requests of clients that are gone."""
        wait_until(lambda: not self.going, "the proxy has passed on all requests", 30)


@contextlib.contextmanager
def proxy(upstream: int, certificate: Path | None = None) -> Iterator[Proxy]:
    """A proxy before the server at this port; at first it does nothing but to pass on. With a certificate, whose file
    has its key too, it speaks TLS."""
    state = Proxy(0, Faults())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            state.going.add(threading.get_ident())
            try:
                self.treat()
            finally:
                state.going.discard(threading.get_ident())

        def treat(self) -> None:
            faults = state.faults
            number = faults.note(self.command, self.path, self.headers)
            status = faults.status(self.path, number)
            if status == -1:
                self.hang_up()
                return
            length = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(length) if length else None
            if len(sent or b"") < length or self.is_gone():
                self.hang_up()
                return
            if status:
                self.answer(status, [("Content-Type", "application/xml")], faults.body.encode())
                return
            connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=30)
            with contextlib.closing(connection), self.turn(number in faults.conditional):
                connection.request(self.command, self.path, sent, dict(self.headers))
                answer = connection.getresponse()
                if faults.lost(self.path, number):
                    answer.read()
                    self.hang_up()
                    return
                if answer.status == 403 and "uploadId=" in self.path:
                    self.answer(404, [("Content-Type", "application/xml")], NO_SUCH_UPLOAD)
                    return
                headers = [pair for pair in answer.getheaders() if pair[0].lower() not in ("transfer-encoding", "date")]
                tag = faults.tag(self.path, number)
                if tag is not None:
                    headers = [pair for pair in headers if pair[0].lower() != "etag"] + [("ETag", tag)]
                self.pass_on(answer, headers, faults.cut(self.path, number))

        def turn(self, is_conditional: bool) -> contextlib.AbstractContextManager[object]:
            upload = parse_qs(self.path.partition("?")[2]).get("uploadId")
            if upload or (is_conditional and self.command == "PUT"):
                return ONE_AT_A_TIME[upload[0] if upload else ""]
            return contextlib.nullcontext()

        def is_gone(self) -> bool:
            """Whether the client has closed the connection, so that its request would not have come."""
            if certificate:
                return False
            with contextlib.suppress(BlockingIOError):
                return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return False

        def hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def pass_on(self, answer: http.client.HTTPResponse, headers: list[tuple[str, str]], cut: int | None) -> None:
            if not any(name.lower() == "content-length" for name, _ in headers):
                self.answer(answer.status, headers, answer.read())
                return
            self.send_response_only(answer.status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            while piece := answer.read(PIECE if cut is None else min(PIECE, cut)):
                self.wfile.write(piece)
                if cut is not None:
                    cut -= len(piece)
                    if cut <= 0:
                        self.wfile.flush()
                        self.hang_up()
                        return

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in [*headers, ("Content-Length", str(len(body)))]:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def cat(program: Program, address: str, shard: int, environment: dict[str, str], *flags: object) -> bytes:
    """A shard, through `cat`."""
    command = [str(program.path), "cat", "--shards", address, str(shard), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def why_not(program: Program, address: str, environment: dict[str, str], *flags: object) -> str:
    """The message with which `cat` refuses the first shard."""
    command = ["cat", "--shards", address, 0, *flags]
    done = program.run(*command, env=environment, check=False)
    assert done.returncode == 1 and "panicked" not in done.stderr, done.stderr
    assert SECRET_KEY not in done.stderr
    return done.stderr
