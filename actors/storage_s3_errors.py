"""What an error of the S3 client means: whose fault it is, whether trying again helps, what to check."""

import asyncio

import aiohttp
from botocore import exceptions as boto

from actors.retries import TransientError
from actors.storage_errors import (
    AccessDenied,
    ObjectNotFound,
    StorageError,
    StorageTimeout,
    StorageUnavailable,
)

_NOT_FOUND = {"404", "NoSuchKey", "NotFound", "NoSuchVersion"}
_BAD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidToken",
    "NotSignedUp",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}
_WRONG_REGION = {
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
}
_TRANSIENT_CODES = {
    "BadDigest",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
)
_UNREACHABLE = (
    boto.EndpointConnectionError,
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
    aiohttp.ClientConnectorError,
)
_SLOW = (boto.ReadTimeoutError, asyncio.TimeoutError, aiohttp.ServerTimeoutError)
_BROKEN_OFF = (boto.HTTPClientError, boto.IncompleteReadError, aiohttp.ClientError, ConnectionError)

_CHECK_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or AWS_PROFILE"
_CHECK_ENDPOINT = "check AWS_ENDPOINT_URL, AWS_REGION and the network"


def storage_error(
    error: Exception, uri: str, endpoint: str, *, writing: bool
) -> StorageError | TransientError:
    """Our error for one of the client's; wrapped in `TransientError` where another try may succeed."""
    if isinstance(error, StorageError | TransientError):
        return error
    if isinstance(error, boto.ClientError):
        return _refused(error, uri, endpoint, writing=writing)
    if isinstance(error, _NO_CREDENTIALS):
        return StorageUnavailable(f"{uri}: no usable S3 credentials ({error}); {_CHECK_CREDENTIALS}", uri)
    if isinstance(error, boto.ParamValidationError):
        return ObjectNotFound(f"{uri} cannot exist: {_one_line(error)}", uri)
    if isinstance(error, _UNREACHABLE):
        return TransientError(
            StorageUnavailable(f"{uri}: {endpoint} cannot be reached; {_CHECK_ENDPOINT}", uri)
        )
    if isinstance(error, _SLOW):
        return TransientError(
            StorageTimeout(
                f"{uri}: {endpoint} did not answer within the time allowed; {_CHECK_ENDPOINT}", uri
            )
        )
    if isinstance(error, _BROKEN_OFF):
        reason = f"the connection to {endpoint} broke off ({_one_line(error)})"
        return TransientError(StorageUnavailable(f"{uri}: {reason}; {_CHECK_ENDPOINT}", uri))
    return StorageUnavailable(f"{uri}: {_one_line(error)}; {_CHECK_ENDPOINT}", uri)


def is_forbidden(error: Exception) -> bool:
    return isinstance(error, boto.ClientError) and _status(error) == 403


def _refused(
    error: boto.ClientError, uri: str, endpoint: str, *, writing: bool
) -> StorageError | TransientError:
    code, status = str(error.response.get("Error", {}).get("Code", "")), _status(error)
    answer = f"{endpoint} answered {status} {code}".rstrip()
    if code == "NoSuchBucket":
        message = f"{uri}: the bucket does not exist ({answer}); check the name, or create it"
        return StorageUnavailable(message, uri) if writing else ObjectNotFound(message, uri)
    if code in _NOT_FOUND:
        return ObjectNotFound(f"{uri} was not found ({answer})", uri)
    if code in _BAD_CREDENTIALS:
        return StorageUnavailable(
            f"{uri}: the S3 credentials are not accepted ({answer}); {_CHECK_CREDENTIALS}", uri
        )
    if code in _WRONG_REGION:
        return StorageUnavailable(f"{uri}: wrong region or endpoint ({answer}); {_CHECK_ENDPOINT}", uri)
    if code == "RequestTimeTooSkewed":
        return StorageUnavailable(f"{uri}: {answer}; check this machine's clock", uri)
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUSES:
        return TransientError(
            StorageUnavailable(f"{uri}: {answer}, also after retries; {_CHECK_ENDPOINT}", uri)
        )
    if status in {401, 403}:
        doing = "written" if writing else "read"
        return AccessDenied(
            f"{uri} may not be {doing} with these credentials ({answer}); check the bucket's policy", uri
        )
    return StorageUnavailable(f"{uri}: {answer}: {_one_line(error)}", uri)


def _status(error: boto.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
