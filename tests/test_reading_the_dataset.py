"""docs/reading-the-dataset.md: its queries run on records as a render leaves them."""

import re
from pathlib import Path

import pytest

from tests.support.outputs import write_output, write_records

duckdb = pytest.importorskip("duckdb")
PAGE = Path(__file__).parent.parent / "docs" / "reading-the-dataset.md"
RECORDS = "outputs/run/records/*.parquet"


@pytest.fixture
def answers(tmp_path):
    records = write_output(tmp_path / "out", 48, styles=3, videos=1)
    for record in records:
        record["meta"] = '{"campaign": "spring"}'
    write_records(tmp_path / "out", records)
    [block] = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    statements = [text for text in block.split(";") if text.strip()]
    assert all(RECORDS in text for text in statements)
    place = str(tmp_path / "out" / "records" / "*.parquet")
    return records, [duckdb.sql(text.replace(RECORDS, place)).fetchall() for text in statements]


def test_every_query_answers_with_what_the_records_hold(answers):
    records, (by_status, by_style, hours, own_columns) = answers
    made = [record for record in records if record["status"] == "ok"]
    assert by_status[0][:3] == ("ok", None, len(made))
    assert [row[1] for row in by_style] == sorted(row[1] for row in by_style)
    assert sum(row[3] for row in by_style) == len(made)
    spent_s = sum(record["timings"]["denoise_s"] + record["timings"]["decode_s"] for record in made)
    assert hours == [("night", pytest.approx(spent_s / 3600))]
    assert own_columns == [(record["row_id"], "spring") for record in records]
