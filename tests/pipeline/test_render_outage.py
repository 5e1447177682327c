"""A run while its object store is away: a short outage is waited for, a long one ends it with everything kept."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.render
from pipeline.prepare import prepare
from pipeline.render import render
from schemas.manifest import manifest_schema
from schemas.run import FetchLimits, InfrastructureError, RenderRun
from tests.support import faulty_proxy
from tests.support.faulty_proxy import FaultyProxy

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def proxy(s3_env: Any, short_pauses: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def make_run(tmp_path: Path, tiny_model: Path, pictures: Path) -> Any:
    """Four rows from a local manifest to an output in S3."""
    rows = [
        {"row_id": f"row {row}", "prompt": f"cat {row}", "style_image_uri": [str(pictures / "0.png")]}
        for row in range(4)
    ]
    table = pa.Table.from_pylist(rows, schema=manifest_schema(list(rows[0])))
    pq.write_table(table, tmp_path / "m.parquet")

    def make(output: str, **config: Any) -> RenderRun:
        manifest, limits = str(tmp_path / "m.parquet"), FetchLimits(fetch_retries=1, fetch_timeout_s=20)
        return RenderRun(
            manifest=manifest, model=str(tiny_model), output=output, num_frames=1, limits=limits, **config
        )

    return make


def after_first_record(monkeypatch: pytest.MonkeyPatch, happens: Any) -> None:
    """Calls `happens` once, when the first record of a run is committed."""
    original = pipeline.render.render_units
    waiting = [happens]

    def render_units(prepared: Any) -> Iterator[Any]:
        for record in original(prepared):
            if waiting:
                waiting.pop()()
            yield record

    monkeypatch.setattr(pipeline.render, "render_units", render_units)


def committed(server: Any, prefix: str) -> int:
    listing = server.client().list_objects_v2(Bucket="outputs", Prefix=f"{prefix}/commits/")
    return len(listing.get("Contents", []))


def test_a_short_outage_is_waited_for(
    proxy: FaultyProxy, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_away() -> None:
        proxy.faults = lambda method, path: faulty_proxy.drop
        threading.Timer(4, lambda: setattr(proxy, "faults", lambda method, path: None)).start()

    after_first_record(monkeypatch, go_away)
    summary = render(prepare(make_run("s3://outputs/short", storage_patience_s=120)))
    assert (summary.statuses, summary.missing) == ({"ok": 4}, 0)


def test_a_long_outage_ends_the_run_and_keeps_what_is_finished(
    proxy: FaultyProxy, s3_env: Any, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_away() -> None:
        proxy.faults = lambda method, path: faulty_proxy.status(503, "ServiceUnavailable")

    with monkeypatch.context() as patched:
        after_first_record(patched, go_away)
        with pytest.raises(InfrastructureError, match="503 ServiceUnavailable, also after retries"):
            render(prepare(make_run("s3://outputs/long", storage_patience_s=3)))
    kept = committed(s3_env, "long")
    assert 1 <= kept < 4
    proxy.faults = lambda method, path: None
    # The lease could not be given back; that of a process which has ended, as this one has not, is taken over.
    s3_env.client().delete_object(Bucket="outputs", Key="long/run/lease.json")
    summary = render(prepare(make_run("s3://outputs/long")))
    assert (summary.statuses, summary.rendered, summary.reused) == ({"ok": 4}, 4 - kept, kept)
