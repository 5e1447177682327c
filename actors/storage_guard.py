"""Which addresses a manifest row may make us read.

Rows are written by strangers: a URI must not reach files, buckets or hosts that the run's config does not
mean to offer. http hosts must be public, unless a root in the config names the host itself.
"""

import ipaddress
import os
import posixpath
import re
import socket
import threading
from urllib.parse import SplitResult, unquote, urlsplit

from actors.storage_errors import StorageTimeout, StorageUnavailable, UriForbidden
from actors.uris import is_local, local_path, redact, scheme_of, split_s3
from schemas.run import FetchLimits

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Programs that read URLs disagree on what these mean, and one of them decides where the request goes.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f\\]|^[^/]*//[^/?#]* ")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_location(uri: str, limits: FetchLimits) -> None:
    """Checks scheme, form and root of an input URI; looks up no host (`checked_addresses` does).

    Raises:
        UriForbidden: with the reason.
    """
    scheme = scheme_of(uri)
    if scheme not in limits.input_schemes:
        raise UriForbidden(
            f"{uri}: scheme {scheme!r} is not allowed for inputs; allowed: {', '.join(limits.input_schemes)}",
            uri,
        )
    try:
        if scheme == "s3":
            split_s3(uri)
            climbs = _climbs(uri)
        elif scheme == "file":
            local_path(uri)
            climbs = False  # links and ".." are resolved before the roots are compared
        else:
            climbs = _climbs_when_decoded(split_http(uri).path)
    except ValueError as error:
        raise UriForbidden(str(error), uri) from None
    if climbs:
        raise UriForbidden(f"{uri}: '..' is not allowed in an input URI", uri)
    if limits.input_roots and not any(_below(uri, root) for root in limits.input_roots):
        raise UriForbidden(
            f"{uri} is outside the allowed input roots: {', '.join(map(redact, limits.input_roots))}", uri
        )


def split_http(uri: str) -> SplitResult:
    """The parts of an http(s) URI.

    Raises:
        ValueError: no host, or a port that is none.
    """
    try:
        parts = urlsplit(uri)
        if parts.scheme.lower() not in _DEFAULT_PORTS or not parts.hostname or parts.port == 0:
            raise ValueError
        if _AMBIGUOUS.search(uri):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{redact(uri)}: an http URI must have the form http(s)://host[:port]/path"
        ) from None
    return parts


def port_of(parts: SplitResult) -> int:
    """The port that an http(s) URI leads to."""
    return parts.port or _DEFAULT_PORTS[parts.scheme.lower()]


def _climbs(path: str) -> bool:
    """Whether a segment is "..", also with the parameters that some servers cut off ("..;x")."""
    return any(segment.partition(";")[0] == ".." for segment in path.replace("\\", "/").split("/"))


def _climbs_when_decoded(path: str) -> bool:
    """The same after any number of decodings: a proxy and a server behind it may each do one."""
    while not _climbs(path):
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
    return True


def checked_addresses(uri: str, limits: FetchLimits, timeout_s: float) -> list[str]:
    """The numeric addresses of an http(s) URI's host, all of which may be connected to.

    The caller connects to one of these and does not look the name up again: a name that changes its address
    between check and use (DNS rebinding) gains nothing.

    Raises:
        UriForbidden: any address of the host is loopback, private, link-local, a metadata service's, ...
        StorageUnavailable: the host has no address.
    """
    parts = split_http(uri)
    assert parts.hostname is not None
    found = _look_up(uri, parts.hostname, port_of(parts), timeout_s)
    named = any(_names_host(uri, root) for root in limits.input_roots)
    for address in found:
        if not named and not _is_public(ipaddress.ip_address(address.partition("%")[0])):
            raise UriForbidden(
                f"{uri}: {parts.hostname} is {address}, which is not a public address; to read from this host, "
                f"name it in limits.input_roots",
                uri,
            )
    return found


def _look_up(uri: str, host: str, port: int, timeout_s: float) -> list[str]:
    """getaddrinfo with a time limit, which the system's resolver does not take."""
    found: list[str] = []
    failure: list[Exception] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError) as error:
            failure.append(error)

    thread = threading.Thread(target=ask, name="look-up", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise StorageTimeout(f"{uri}: looking up the host {host} took longer than {timeout_s:.0f} s", uri)
    if failure or not found:
        raise StorageUnavailable(f"{uri}: the host {host} has no known address", uri)
    return found


def _is_public(address: Address) -> bool:
    """False for every address, however it is wrapped, that may lead into our own network."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _below(uri: str, root: str) -> bool:
    """Whether `uri` is `root` or below it, by whole path segments."""
    scheme = scheme_of(uri)
    if scheme != scheme_of(root):
        return False
    if is_local(uri):
        return _is_prefix(os.path.realpath(local_path(root)), os.path.realpath(local_path(uri)))
    if scheme == "s3":
        return _is_prefix(root.split("://", 1)[1], uri.split("://", 1)[1])
    wanted, given = urlsplit(root), urlsplit(uri)
    if wanted.hostname and _origin(wanted) != _origin(given):
        return False
    return _is_prefix(
        _decoded_segments(posixpath.normpath(wanted.path or "/")), _decoded_segments(given.path)
    )


def _decoded_segments(path: str) -> str:
    """The path decoded, but for slashes: "a%2Fb" is one segment."""
    return "/".join(unquote(segment).replace("/", "%2F") for segment in path.split("/")) or "/"


def _is_prefix(root: str, path: str) -> bool:
    root = root.rstrip("/")
    return path == root or path.startswith(root + "/")


def _names_host(uri: str, root: str) -> bool:
    return scheme_of(root) in _DEFAULT_PORTS and bool(urlsplit(root).hostname) and _below(uri, root)


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").rstrip(".").lower(), port_of(parts)
