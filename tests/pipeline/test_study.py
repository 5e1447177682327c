"""The preference study: what the page and the key hold, and how votes are counted."""

import json
import re
from collections import Counter

import pytest
from rich.console import Console

from actors.storage import Storage
from pipeline.study import choose_trials, make_study
from pipeline.study_votes import collect, krippendorff_alpha, print_result
from schemas.review_run import StudyRun
from schemas.run import UsageError
from tests.support.outputs import write_output


def page_data(folder):
    html = (folder / "study.html").read_text()
    return html, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1])


@pytest.fixture
def study(tmp_path):
    """A study of two runs; its folder."""
    for name, seed in (("run-secret-a", 0), ("run-secret-b", 9)):
        write_output(tmp_path / name, 10, styles=2, videos=2, seed=seed)
    outputs = tuple(str(tmp_path / name) for name in ("run-secret-a", "run-secret-b"))
    make_study(StudyRun(outputs=outputs, study=str(tmp_path / "study"), pairs=6), Storage())
    return tmp_path / "study"


def vote(study, rater, prefer, name="t.json"):
    """One rater's ballot: always `prefer`, the index of a run, or "same"."""
    key = json.loads((study / "key.json").read_text())
    votes = [
        {
            "trial": trial,
            "question": question,
            "choice": "same" if prefer == "same" else "first" if sides["first"] == prefer else "second",
        }
        for trial, sides in key["trials"].items()
        for question in ("text", "style", "temporal")
    ]
    (study / "votes").mkdir(exist_ok=True)
    ballot = {"study": key["study"], "rater": rater, "votes": votes}
    (study / "votes" / f"{rater}.json").write_text(json.dumps(ballot))


def test_the_page_is_blind_and_the_key_is_not(study):
    html, data = page_data(study)
    assert len(data["trials"]) == 6
    assert "run-secret" not in html
    key = json.loads((study / "key.json").read_text())
    assert [uri.rsplit("/", 1)[-1] for uri in key["runs"]] == ["run-secret-a", "run-secret-b"]
    assert Counter(sides["first"] for sides in key["trials"].values()) == {0: 3, 1: 3}
    assert all(trial["references"][0].startswith("data:image/jpeg;base64,") for trial in data["trials"])


def test_every_pair_of_runs_is_shown_about_equally_often():
    trials = choose_trials([f"{i:032x}" for i in range(20)], runs=3, pairs=30, seed=1)
    shown = Counter(tuple(sorted((t.first, t.second))) for t in trials)
    assert set(shown) == {(0, 1), (0, 2), (1, 2)}
    assert max(shown.values()) - min(shown.values()) <= 2
    assert len({(t.record_id, frozenset((t.first, t.second))) for t in trials}) == 30
    assert Counter(t.record_id for t in trials[:20]).most_common(1)[0][1] == 1


def test_votes_become_preferences(study):
    for rater, prefer in (("r1", 1), ("r2", 1), ("r3", 0), ("r4", "same")):
        vote(study, rater, prefer)
    result = collect(StudyRun(study=str(study), collect=(str(study / "votes"),)), Storage())
    assert (result.raters, result.votes) == (4, 72)
    style = next(found for found in result.preferences if found.question == "style")
    assert style.run.endswith("run-secret-a")
    assert style.share.mean == pytest.approx((0 + 0 + 1 + 0.5) / 4)
    assert style.share.low < style.share.mean < style.share.high
    assert style.same == 0.25
    console = Console(record=True, width=120, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    print_result(result, console)
    assert "72 votes of 4 raters" in console.export_text()
    assert json.loads((study / "results.json").read_text())["raters"] == 4


def test_raters_who_all_say_the_same_agree(study):
    for rater in ("r1", "r2"):
        vote(study, rater, 1)
    result = collect(StudyRun(study=str(study), collect=(str(study / "votes"),)), Storage())
    assert result.agreement == {"text": 1.0, "style": 1.0, "temporal": 1.0}


def test_agreement_is_that_of_krippendorffs_examples():
    table = [
        ["1", "2", "3", "3", "2", "1", "4", "1", "2", ".", ".", "."],
        ["1", "2", "3", "3", "2", "2", "4", "1", "2", "5", ".", "3"],
        [".", "3", "3", "3", "2", "3", "4", "2", "2", "5", "1", "."],
        ["1", "2", "3", "3", "2", "4", "4", "1", "2", "5", "1", "."],
    ]
    units = [[value for value in column if value != "."] for column in zip(*table, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    two = zip("0100000010", "1110010000", strict=True)
    assert krippendorff_alpha([list(pair) for pair in two]) == pytest.approx(0.095, abs=5e-4)
    assert krippendorff_alpha([["a"], ["b"]]) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"study": "another", "rater": "r", "votes": []}', "votes of 'another'"),
        ("not json", "is not JSON"),
        (
            '{"study": "x", "rater": "r", "votes": [{"trial": "t", "question": "q", "choice": "first"}]}',
            "question",
        ),
    ],
)
def test_votes_that_do_not_belong_are_refused(study, content, message):
    (study / "v.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        collect(StudyRun(study=str(study), collect=(str(study / "v.json"),)), Storage())


def test_runs_without_shared_rows_make_no_study(tmp_path):
    write_output(tmp_path / "a", 3)
    write_output(tmp_path / "b", 3)
    from tests.support.outputs import ok_record, write_records

    write_records(tmp_path / "b", [ok_record("other", "Other.", ["x.png"])])
    run = StudyRun(outputs=(str(tmp_path / "a"), str(tmp_path / "b")), study=str(tmp_path / "study"))
    with pytest.raises(UsageError, match="no finished row"):
        make_study(run, Storage())
