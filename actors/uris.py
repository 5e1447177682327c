"""URIs as text: what scheme, joined how, relative to what, and with their secrets removed."""

import os
import posixpath
import re
from pathlib import Path
from urllib.parse import quote, unquote

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_SCHEME_WITHOUT_SLASHES = re.compile(r"^(file|data):", re.IGNORECASE)

_HIDDEN = "***"
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
_SHORTEST_SECRET = 4  # a one-letter "secret" would blank out half of every message
# An S3 secret may hold "/", and an S3 URI has no port, so everything up to the "@" is credentials. In other
# URIs "host:8000/a@2x.png" is no secret, unless what follows the colon is not a port.
# Every part has a longest length, so that a megabyte of hostile text costs seconds and not hours.
_S3_USERINFO = re.compile(r"(s3a?://)(?:[^\s/@:]{0,512}:[^\s@]{0,512}|[^\s/@]{0,512})@", re.IGNORECASE)
_USERINFO = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]{0,15}://)"
    r"(?:[^\s/@]{0,512}@|[^\s/@:]{0,512}:(?!\d{1,5}(?:/|$))[^\s@?#]{0,512}@)"
)
_QUERY_SECRETS = re.compile(
    r"([?&;](?:amp;)?[^=&?;#\s]{0,64}(?:signature|credential|security-token|token|awsaccesskeyid|secret|password|passwd"
    r"|api[-_]?key|access[-_]?key|key-pair-id|policy|auth|\bsig|\bkey)[^=&?;#\s]{0,64}=)[^&;#\s\"'<>]*[^&;#\s\"'<>:,.)]",
    re.IGNORECASE,
)


def scheme_of(uri: str) -> str:
    """The scheme in lower case; a path without one is "file"."""
    found = _SCHEME.match(uri) or _SCHEME_WITHOUT_SLASHES.match(uri)
    return found.group(1).lower() if found else "file"


def is_local(uri: str) -> bool:
    return scheme_of(uri) == "file"


def local_path(uri: str) -> Path:
    """The path of a local URI: "file:///a%20b" and "/a b" are the same file.

    Raises:
        ValueError: the URI names another host, or holds a NUL.
    """
    text = uri
    if uri[:5].lower() == "file:":
        text = unquote(uri[5:])
        if text.startswith("//"):
            host, slash, rest = text[2:].partition("/")
            if host not in {"", "localhost"} or not slash:
                raise ValueError(f"{redact(uri)}: a file URI must have the form file:///absolute/path")
            text = "/" + rest
    if "\0" in text:
        raise ValueError(f"{redact(uri)!r}: a path must not hold a NUL character")
    return Path(text)


def absolute_path(uri: str) -> str:
    """The absolute path of a local URI without "." and "..", links kept as they are."""
    return os.path.abspath(local_path(uri))  # noqa: PTH100 - Path.resolve() would follow links


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI; the key is taken literally and may be empty.

    Raises:
        ValueError: no bucket, or credentials inside the URI.
    """
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    if not bucket:
        raise ValueError(f"{redact(uri)}: an S3 URI must have the form s3://bucket/key")
    if "@" in bucket or ":" in bucket:
        raise ValueError(
            f"{redact(uri)}: credentials do not belong in a URI; give them as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or as a profile"
        )
    return bucket, key


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts appended, one slash between each."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def resolve(uri: str, base: str) -> str:
    """Where `uri` is, when it is written in the file `base`.

    A relative path is relative to the folder that holds `base`; a `base` ending in "/" is that folder. Local
    results are absolute paths. ".." that climbs out of a bucket or host stays in the result, and is refused
    when the URI is checked.
    """
    scheme = scheme_of(uri)
    if scheme != "file":
        return uri
    if uri[:5].lower() == "file:" or uri.startswith("/"):
        try:
            return absolute_path(uri)
        except ValueError:
            return uri  # refused with its reason when it is checked
    if is_local(base):
        return absolute_path(posixpath.join(_folder(str(local_path(base)), base), uri))
    prefix, _, rest = base.partition("://")
    host, _, path = rest.partition("/")
    resolved = posixpath.normpath(posixpath.join(_folder(path, base), uri))
    return f"{prefix}://{host}/{resolved}"


def _folder(path: str, base: str) -> str:
    return path if base.endswith("/") else posixpath.dirname(path)


def redact(text: str) -> str:
    """`text` without credentials: URI userinfo, signatures and tokens in queries, values of AWS_* secrets."""
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, _HIDDEN).replace(quote(secret, safe=""), _HIDDEN)
    text = _S3_USERINFO.sub(rf"\1{_HIDDEN}@", text)
    text = _USERINFO.sub(rf"\1{_HIDDEN}@", text)
    return _QUERY_SECRETS.sub(rf"\1{_HIDDEN}", text)
