"""The metrics as a Prometheus server would scrape them from a local Ray, against the records."""

import json
import re
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from actors import metrics
from schemas.run import RenderRun

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "stylecrafter.json"
SUFFIXES = {"Counter": ("",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}


def test_names_carry_their_unit_and_kind():
    for metric in metrics.METRICS:
        name = metric.info["name"]
        assert re.fullmatch(r"stylecrafter_[a-z_]+", name)
        assert name.endswith("_total") == isinstance(metric, metrics.Counter), name
        assert metric.info["description"].endswith("."), name
        assert "run_id" in metric.info["tag_keys"], name


def test_queues_count_what_waits_and_what_is_worked_on(monkeypatch):
    seen = []
    monkeypatch.setattr(metrics, "in_queue", lambda name, rows: seen.append((name, rows)))
    with metrics.QueuePool("fetch", 1) as pool:
        for future in [pool.submit(int, "1"), pool.submit(int, "no number")]:
            future.exception()
    assert seen[0] == ("fetch", 1)
    assert seen[-1] == ("fetch", 0)
    assert max(rows for _, rows in seen) <= 2


@pytest.fixture
def scrape(monkeypatch):
    """Reads the endpoint of a local Ray."""
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")  # what Ray allows at least
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    [node] = ray.nodes()
    yield lambda: samples_of(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics")
    ray.shutdown()


def samples_of(url):
    """{(name, values of its labels of ours): value}, summed over processes; buckets left out."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = Counter()
    for line in lines:
        if found := re.fullmatch(r"ray_(stylecrafter_\w+)\{(.*)\} (\S+)", line):
            name, labels, value = found.groups()
            of = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            own = [of[key] for key in ("run_id", "status", "stage", "queue", "cache", "result") if key in of]
            if "le" not in of:
                samples[name, *own] += float(value)
    return samples


@pytest.mark.slow
def test_the_endpoint_agrees_with_the_records(scrape, tiny_model, pictures, tmp_path):
    from pipeline.prepare import prepare
    from pipeline.render import render

    pq.write_table(
        pa.Table.from_pylist(
            [
                {"prompt": f"prompt {index}", "style_image_uri": [f"{pictures}/{picture}.png"]}
                for index, picture in enumerate([0, 0, 1, "broken"])
            ]
        ),
        tmp_path / "manifest.parquet",
    )
    run = RenderRun(
        manifest=str(tmp_path / "manifest.parquet"),
        model=str(tiny_model),
        output=str(tmp_path / "out"),
        run_id="measured",
        actors=1,
    )
    render(prepare(run))
    records = pq.read_table(tmp_path / "out" / "records").to_pylist()
    expected = expected_of(records)
    deadline = time.monotonic() + 30
    while not (expected.keys() <= (samples := scrape()).keys()) and time.monotonic() < deadline:
        pass  # a scrape takes its time
    assert {key: samples[key] for key in expected} == pytest.approx(expected)
    # What an actor counted in the last second of its life may be missing.
    assert samples["stylecrafter_device_busy_seconds_total", "measured"] > 0
    assert any(name == "stylecrafter_cache_requests_total" for name, *_ in samples)


def expected_of(records):
    """The samples that the driver must have counted, in the order of labels that the endpoint has."""
    expected = Counter()
    for record in records:
        expected["stylecrafter_rows_total", "measured", record["status"]] += 1
        expected["stylecrafter_video_bytes_total", "measured"] += record["size_bytes"] or 0
        for name, seconds in (record["timings"] or {}).items():
            if seconds:
                stage = name.removesuffix("_s")
                expected["stylecrafter_stage_seconds_total", "measured", stage] += seconds
                expected["stylecrafter_stage_duration_seconds_count", "measured", stage] += 1
    return expected


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are():
    known = {metric.info["name"]: set(metric.info["tag_keys"]) for metric in metrics.METRICS}
    kinds = {metric.info["name"]: type(metric).__name__ for metric in metrics.METRICS}
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) >= len(metrics.METRICS)
    used = set()
    for expression in expressions:
        selectors = re.findall(r"\bray_(\w+)\{([^}]*)\}", expression)
        assert len(selectors) == expression.count("ray_"), expression
        for sample, matchers in selectors:
            [name] = [n for n in known if any(sample == n + s for s in SUFFIXES[kinds[n]])]
            assert set(re.findall(r"(\w+)[!=]", matchers)) <= known[name], expression
            used.add(name)
    assert used == set(known)
