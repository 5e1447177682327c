"""jobs.report, jobs.evaluate, jobs.study and jobs.export as a user calls them: what they print and return."""

import sys
from pathlib import Path

import pytest

import jobs.evaluate
import jobs.export
import jobs.report
import jobs.study
from schemas.run import ExitCode, UsageError
from tests.support.outputs import write_output


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a job's main with arguments; exit code and what it printed."""

    def run(job, *arguments):
        monkeypatch.setattr(sys, "argv", [job.__name__, *map(str, arguments)])
        return job.main(), capsys.readouterr()

    return run


def test_report_prints_where_it_is(tmp_path, call):
    write_output(tmp_path / "out", 3)
    code, printed = call(jobs.report, "--output", tmp_path / "out")
    assert code == ExitCode.DONE
    assert Path(printed.out.strip()).is_file()


def test_export_names_what_is_missing(tmp_path, call):
    records = write_output(tmp_path / "out", 3)
    Path(records[0]["video_uri"]).unlink()
    code, printed = call(jobs.export, "--output", tmp_path / "out", "--webdataset", tmp_path / "shards")
    assert code == ExitCode.DONE_WITH_FAILED_ROWS
    assert "row 'row-00000' is not in the export" in printed.err
    assert "2 videos in 1 files" in printed.out


def test_study_prints_which_file_is_for_whom(tmp_path, call):
    for name, seed in (("a", 0), ("b", 4)):
        write_output(tmp_path / name, 4, seed=seed)
    code, printed = call(
        jobs.study, "--outputs", tmp_path / "a", tmp_path / "b", "--study", tmp_path / "s", "--pairs", 2
    )
    assert code == ExitCode.DONE
    assert f"for you alone   {tmp_path / 's' / 'key.json'}" in printed.out


def test_a_comparison_of_what_was_not_evaluated_says_what_to_do(tmp_path, call):
    for name in ("a", "b"):
        write_output(tmp_path / name, 3)
    with pytest.raises(UsageError, match="is not evaluated; first: python -m jobs"):
        call(jobs.evaluate, "--compare", tmp_path / "a", tmp_path / "b")
