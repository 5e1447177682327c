"""What networks and busy stores do to requests, on a schedule: for a proxy in front of a real S3 server."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler

from benchmarks.faults.fault import Fault
from tests.support.faulty_proxy import Fault as Spoil
from tests.support.faulty_proxy import FaultyProxy, drop, lose_answer, status, truncate

KINDS = ("s3_5xx", "s3_429", "s3_dropped", "s3_truncated", "s3_slow", "s3_outage")
_MOST_PER_OBJECT = 2  # of one method and path: more than a client may be asked to bear
_EVERY = 3  # requests
_OUTAGE_S = 1.5
_SLOW_S = 2.0
_SLOW_PARTS = 8
_READING = {"s3_truncated", "s3_slow"}  # what needs a body that the client reads


class Schedule:
    """Which request is spoilt, and how: every third one, by the next fault that fits. For `FaultyProxy.faults`.

    Args:
        faults: those of kind `s3_outage` may give their length in seconds as their action.
        claim: is told of each fault that happens.
    """

    def __init__(self, faults: Sequence[Fault], claim: Callable[[Fault], object], seed: int):
        self._waiting = list(faults)
        self._claim = claim
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._count = 0
        self._spoilt: Counter[str] = Counter()
        self._down_until = 0.0

    def __call__(self, method: str, path: str) -> Spoil | None:
        name = f"{method} {path.partition('?')[0]}"
        with self._lock:
            if time.monotonic() < self._down_until:
                return drop
            self._count += 1
            if self._count % _EVERY or self._spoilt[name] >= _MOST_PER_OBJECT:
                return None
            fault = next((f for f in self._waiting if method == "GET" or f.kind not in _READING), None)
            if fault is None:
                return None
            self._waiting.remove(fault)
            self._spoilt[name] += 1
            self._claim(fault)
            if fault.kind == "s3_outage":
                self._down_until = time.monotonic() + float(fault.action or _OUTAGE_S)
            return self._chance.choice(_SPOILS[fault.kind])


def _slow(proxy: FaultyProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """The answer comes whole, in pieces with pauses between them."""
    code, headers, data = proxy.pass_on(handler, body)
    handler.send_response_only(code)
    for name, value in headers:
        if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    size = max(1, -(-len(data) // _SLOW_PARTS))
    for start in range(0, len(data), size):
        handler.wfile.write(data[start : start + size])
        proxy.pause(_SLOW_S / _SLOW_PARTS)


_SPOILS: dict[str, tuple[Spoil, ...]] = {
    "s3_5xx": (status(500, "InternalError"), status(502), status(503, "SlowDown"), status(503)),
    "s3_429": (status(429, "TooManyRequests"),),
    "s3_dropped": (drop, lose_answer),
    "s3_truncated": (truncate,),
    "s3_slow": (_slow,),
    "s3_outage": (drop,),
}
