"""A proxy before a real S3 server that spoils requests as a test says; all others pass unchanged."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

_DRIP_BYTES = 64
_DRIP_PAUSE_S = 0.05

# What is done to a request: (method, path) to one of the functions below; None lets it pass.
Fault = Callable[["FaultyProxy", BaseHTTPRequestHandler, bytes], None]
Chooser = Callable[[str, str], Fault | None]


class FaultyProxy:
    """`with FaultyProxy(server.endpoint) as proxy: proxy.faults = lambda method, path: drop`."""

    def __init__(self, upstream: str):
        self.faults: Chooser = lambda method, path: None
        self.requests: list[str] = []
        self._upstream = urlsplit(upstream).netloc
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def first(self, count: int, fault: Fault, method: str = "", path: str = "") -> None:
        """Spoils the next `count` requests of this method whose path contains `path`."""
        left = [count]
        lock = threading.Lock()

        def choose(asked_method: str, asked_path: str) -> Fault | None:
            with lock:
                if left[0] and method in {"", asked_method} and path in asked_path:
                    left[0] -= 1
                    return fault
            return None

        self.faults = choose

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def pass_on(
        self, handler: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The real server's answer."""
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            # The Host header stays: it is part of what the client signed.
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def pause(self, seconds: float) -> bool:
        """Whether the proxy is to stop."""
        return self._stopping.wait(seconds)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                owner.requests.append(f"{self.command} {self.path}")
                fault = owner.faults(self.command, self.path) or _whole
                fault(owner, self, body)

            do_HEAD = do_PUT = do_DELETE = do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Silent: a test's output is its failures."""

        return Handler


def status(code: int, error: str = "") -> Fault:
    """The server answers with this status, and does nothing."""

    def answer(proxy: FaultyProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        text = f"<Error><Code>{error}</Code></Error>".encode() if error else b""
        _send(handler, code, {"Content-Length": str(len(text))}, text)

    return answer


def drop(proxy: FaultyProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """The connection is reset before the server sees the request."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def lose_answer(proxy: FaultyProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """The server does what it is asked; the client never learns."""
    proxy.pass_on(handler, body)
    drop(proxy, handler, body)


def truncate(proxy: FaultyProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Half of the answer's body arrives, then the connection ends."""
    code, headers, data = proxy.pass_on(handler, body)
    handler.close_connection = True
    _send(handler, code, dict(headers), data[: len(data) // 2])


def drip(proxy: FaultyProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """The answer's body comes so slowly that no single read takes long."""
    code, headers, data = proxy.pass_on(handler, body)
    handler.close_connection = True
    _send(handler, code, dict(headers), b"")
    try:
        for start in range(0, len(data), _DRIP_BYTES):
            if proxy.pause(_DRIP_PAUSE_S):
                return
            handler.wfile.write(data[start : start + _DRIP_BYTES])
    except OSError:
        return  # the client has had enough


def other_etag(proxy: FaultyProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """The answer to an upload is that of a store that holds other bytes than were sent."""
    code, headers, data = proxy.pass_on(handler, body)
    _send(handler, code, {**dict(headers), "ETag": f'"{"0" * 32}"'}, data)


def hang(proxy: FaultyProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """No answer at all, for as long as the client waits."""
    handler.close_connection = True
    proxy.pause(60)


def _whole(proxy: FaultyProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    try:
        code, headers, data = proxy.pass_on(handler, body)
    except OSError:
        drop(proxy, handler, body)  # the server is down
        return
    _send(handler, code, dict(headers), data)


def _send(handler: BaseHTTPRequestHandler, code: int, headers: Mapping[str, str], body: bytes) -> None:
    handler.send_response_only(code)
    for name, value in headers.items():
        if name.lower() not in {"transfer-encoding", "connection"}:
            handler.send_header(name, value)
    if "content-length" not in {name.lower() for name in headers}:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
