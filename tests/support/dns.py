"""Names that resolve as a test says."""

import socket
from typing import Any

import pytest

from actors import storage_guard


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Lets every name resolve to these addresses, one after the other; returns what was asked."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **kwargs: Any) -> list[Any]:
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(storage_guard.socket, "getaddrinfo", getaddrinfo)
    return asked
