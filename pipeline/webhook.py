"""Telling the world how a night ended. Whatever happens here is said, and changes nothing else."""

import time
from pathlib import Path

import httpx

from schemas.night import NightReport, check_webhook

_TRIES = 3
_PAUSE_S = 2.0
_TIMEOUT_S = 10.0


def post(report: NightReport, webhook: str, http_hosts: tuple[str, ...]) -> str:
    """Posts a report as JSON; "sent", or why it was not. The URL may be a secret and is never repeated.

    Args:
        webhook: a URL, or the path of a file that holds it.
    """
    try:
        url = webhook if "://" in webhook else Path(webhook).read_text(encoding="utf-8").strip()
        check_webhook(url, http_hosts)
    except (OSError, ValueError) as error:
        return f"not sent: {error}"
    why = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S * attempt)
        try:
            answer = httpx.post(
                url,
                content=report.model_dump_json(),
                headers={"Content-Type": "application/json"},
                timeout=_TIMEOUT_S,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = type(error).__name__
            continue
        if answer.is_success:
            return "sent"
        why = f"HTTP status {answer.status_code}"
        if answer.status_code < 500 and answer.status_code != 429:
            break
    return f"not sent: {why}"
