"""A local web server that answers as a test says: well, slowly, endlessly, or not at all."""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

Answer = Callable[[BaseHTTPRequestHandler, threading.Event], None]
_DRIP_PAUSE_S = 0.02


class HttpServer:
    """`server.on("/x", answer(503), answer(200, b"..."))`: one answer per request, the last one for all further."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def on(self, path: str, *answers: Answer) -> str:
        """Scripts a path and returns its URL."""
        self._answers[path] = list(answers)
        return self.url + path

    def __enter__(self) -> "HttpServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                self.rfile.read(length)
                owner._next(self)(self, owner._stopping)

            do_HEAD = do_PUT = do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Silent: a test's output is its failures."""

        return Handler

    def _next(self, handler: BaseHTTPRequestHandler) -> Answer:
        path = handler.path.partition("?")[0]
        with self._lock:
            self.requests.append(f"{handler.command} {path}")
            self.headers.append(dict(handler.headers))
            answers = self._answers.get(path, [answer(404)])
            return answers.pop(0) if len(answers) > 1 else answers[0]


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """A whole answer; `headers` with underscores for dashes."""

    def send(handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        _start(handler, status, {"Content-Length": str(len(body)), **named})
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return send


def chunked(body: bytes, **headers: str) -> Answer:
    """A body whose length is not announced."""

    def send(handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        _start(handler, 200, {"Transfer-Encoding": "chunked", **headers})
        for part in (body[: len(body) // 2], body[len(body) // 2 :], b""):
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")

    return send


def endless(announced: int = 10**12) -> Answer:
    """As fast as it goes, until the reader hangs up."""

    def send(handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        _start(handler, 200, {"Content-Length": str(announced)})
        _until_hung_up(handler, stopping, b"x" * 65_536, 0)

    return send


def endless_chunks() -> Answer:
    """The same without a length in advance."""

    def send(handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        _start(handler, 200, {"Transfer-Encoding": "chunked"})
        _until_hung_up(handler, stopping, b"1000\r\n" + b"x" * 4096 + b"\r\n", 0)

    return send


def dripping() -> Answer:
    """A byte at a time: each single read succeeds in time."""

    def send(handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        _start(handler, 200, {"Content-Length": "1000000"})
        _until_hung_up(handler, stopping, b"x", _DRIP_PAUSE_S)

    return send


def dripping_headers() -> Answer:
    """The same within the headers."""

    def send(handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        _until_hung_up(handler, stopping, b"X: y\r\n", _DRIP_PAUSE_S)

    return send


def endless_headers() -> Answer:
    """One header after the other, as fast as it goes."""

    def send(handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        _until_hung_up(handler, stopping, b"X: " + b"y" * 4096 + b"\r\n", 0)

    return send


def slow(pause_s: float, then: Answer) -> Answer:
    """An answer that takes its time to begin."""

    def send(handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        stopping.wait(pause_s)
        then(handler, stopping)

    return send


def silence() -> Answer:
    """No answer at all."""
    return lambda handler, stopping: stopping.wait(30) and None


def reset() -> Answer:
    """The connection is reset after the headers."""

    def send(handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        _start(handler, 200, {"Content-Length": "100"})
        handler.close_connection = True  # and closing it without lingering resets it
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return send


def redirect(to: str) -> Answer:
    return answer(302, Location=to)


def _start(handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def _until_hung_up(
    handler: BaseHTTPRequestHandler, stopping: threading.Event, part: bytes, pause_s: float
) -> None:
    handler.close_connection = True
    try:
        while not stopping.wait(pause_s):
            handler.wfile.write(part)
    except OSError:
        return  # as intended
