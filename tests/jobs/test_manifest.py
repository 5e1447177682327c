"""Manifests from lists and from prompts x styles."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.manifest import main
from schemas.manifest import ManifestError, parse_row


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pa.Table]:
    """Writes a source file, runs the job on it inside its folder, returns the manifest."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, text: str, *argv: str) -> pa.Table:
        Path(name).write_text(text, encoding="utf-8")
        return run_job("--from", name, *argv)

    return run


def run_job(*argv: str) -> pa.Table:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["jobs.manifest", *argv, "--output", "m.parquet"])
        assert main() == 0
    return pq.read_table("m.parquet")


def refusal(run: Callable[[], Any]) -> str:
    with pytest.raises(ManifestError) as caught:
        run()
    assert not Path("m.parquet").exists(), "a refused source must leave no manifest"
    return str(caught.value)


def test_the_published_list_with_one_and_several_references(make: Any, tmp_path: Path) -> None:
    rows = [
        {"prompt": "A wolf.", "style_path": "styles/ink.png"},
        {"prompt": "A river.", "style_path": ["styles/a.png", "styles/b.png"]},
    ]
    table = make("eval.json", json.dumps(rows))
    assert table.column_names == ["prompt", "style_image_uri"]
    assert table["style_image_uri"].to_pylist() == [
        [f"{tmp_path}/styles/ink.png"],
        [f"{tmp_path}/styles/a.png", f"{tmp_path}/styles/b.png"],
    ]


def test_a_style_prefix_takes_the_place_of_the_folder(make: Any) -> None:
    rows = [{"prompt": "p", "style_path": ["a/ink.png", "s3://other/x.png", "/abs/y.png"]}]
    table = make("eval.json", json.dumps(rows), "--style-prefix", "s3://bucket/eval/")
    assert table["style_image_uri"][0].as_py() == [
        "s3://bucket/eval/a/ink.png",
        "s3://other/x.png",
        "/abs/y.png",
    ]


def test_paths_are_relative_to_the_list_not_to_the_working_folder(tmp_path: Path, make: Any) -> None:
    (tmp_path / "sub").mkdir()
    table = make(
        "sub/list.jsonl", '{"prompt": "p", "style_image_uri": "../ink.png", "depth_video_uri": "d.mp4"}'
    )
    assert table["style_image_uri"][0].as_py() == [f"{tmp_path}/ink.png"]
    assert table["depth_video_uri"][0].as_py() == f"{tmp_path}/sub/d.mp4"


def test_csv_with_every_kind_of_reference_list_and_types(make: Any) -> None:
    text = (
        "\ufeffprompt,style_image_uri,num_frames,style_scale,meta_split,row_id\n"
        "one,/a.png,8,0.5,train,r1\n"
        '"two\nlines, quoted",/a.png; /b.png,,,,\n'
        'three,"[""/odd;name.png"", ""/b.png""]",16,,test,\n'
        "\n"
    )
    table = make("rows.csv", text)
    assert table["prompt"].to_pylist() == ["one", "two\nlines, quoted", "three"]
    assert table["style_image_uri"].to_pylist() == [
        ["/a.png"],
        ["/a.png", "/b.png"],
        ["/odd;name.png", "/b.png"],
    ]
    assert table["num_frames"].to_pylist() == [8, None, 16]
    assert table["meta_split"].to_pylist() == ["train", None, "test"]
    assert table["row_id"].to_pylist() == ["r1", None, None]
    assert table.schema.field("num_frames").type == pa.int32()
    assert "num_samples" not in table.column_names


def test_jsonl_rows_may_have_different_columns(make: Any) -> None:
    table = make(
        "rows.jsonl",
        '{"prompt": "a", "style_image_uri": "/a.png", "seed": 9223372036854775807}\n\n'
        '{"prompt": "b", "style_image_uri": ["/b.png"], "meta_tags": ["x", 1], "priority": null}\n',
    )
    assert table["seed"].to_pylist() == [2**63 - 1, None]
    assert table["meta_tags"].to_pylist() == [None, '["x",1]']
    assert table["priority"].to_pylist() == [None, None]


def test_a_manifest_never_invents_row_ids_and_its_rows_parse(make: Any) -> None:
    table = make("rows.jsonl", '{"prompt": "a", "style_image_uri": "/a.png", "fps": 8}\n' * 2)
    assert "row_id" not in table.column_names
    assert [parse_row(row).fps for row in table.to_pylist()] == [8, 8]


def test_the_same_source_gives_the_same_bytes_and_replaces_the_older_manifest(
    make: Any, tmp_path: Path
) -> None:
    make("rows.jsonl", '{"prompt": "a", "style_image_uri": "/a.png"}\n')
    first = (tmp_path / "m.parquet").read_bytes()
    make("rows.jsonl", '{"prompt": "b", "style_image_uri": "/a.png"}\n')
    assert (tmp_path / "m.parquet").read_bytes() != first
    make("rows.jsonl", '{"prompt": "a", "style_image_uri": "/a.png"}\n')
    assert (tmp_path / "m.parquet").read_bytes() == first


def test_all_problems_are_told_with_file_line_field_and_value(make: Any) -> None:
    text = 'prompt,style_image_uri,num_frames\n"a\nb",/a.png,900\n,/a.png,8\nx\nq,"[1",8\n'
    message = refusal(lambda: make("rows.csv", text))
    assert message.splitlines() == [
        "4 problems; nothing was written",
        "  rows.csv, line 2: num_frames = '900': Input should be less than or equal to 512",
        "  rows.csv, line 4: prompt: is missing",
        "  rows.csv, line 5: has 1 cells, but the header has 3",
        message.splitlines()[4],
    ]
    assert message.splitlines()[4].startswith(
        "  rows.csv, line 6: style_image_uri = '[1': is not a JSON list"
    )


def test_only_the_first_twenty_problems_are_written_out(make: Any) -> None:
    text = '{"prompt": "a", "style_image_uri": "/a.png", "fps": 0}\n' * 25
    lines = refusal(lambda: make("rows.jsonl", text)).splitlines()
    assert lines[0] == "25 problems; nothing was written"
    assert len(lines) == 22
    assert lines[-1].strip() == "... and 5 more"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.csv", "", "rows.csv: holds no row"),
        ("rows.csv", "prompt,style_image_uri\n", "rows.csv: holds no row"),
        ("rows.csv", "prompt,style\na,b\n", "lacks the column 'style_image_uri'; it has 'prompt', 'style'"),
        ("rows.csv", "prompt,prompt\na,b\n", "line 1: the column 'prompt' stands twice"),
        ("rows.csv", 'prompt,style_image_uri\na,"b\n', "rows.csv: line 2: is not valid CSV"),
        ("rows.jsonl", '{"prompt": "a"\n', "rows.jsonl, line 1: is not valid JSON"),
        ("rows.jsonl", "[1]\n", "rows.jsonl, line 1: must be an object"),
        ("rows.jsonl", '{"prompt": "a", "prompt": "b"}\n', "the name 'prompt' stands twice"),
        ("rows.json", '{"prompt": "a"}', "rows.json: must hold a list of rows"),
        ("rows.json", "[", "rows.json: is not valid JSON"),
        ("rows.json", "[" * 100_000, "rows.json: is not valid JSON: is nested too deeply"),
        ("rows.json", "[]", "rows.json: holds no row"),
        ("rows.json", '[{"prompt": "a", "style_path": 5}]', "rows.json, row 1: style_image_uri = 5"),
        ("rows.txt", "x", "the suffix '.txt' is not one of .csv, .jsonl, .json"),
    ],
)
def test_an_unusable_source_is_named(name: str, text: str, said: str, make: Any) -> None:
    assert said in refusal(lambda: make(name, text))


def test_a_missing_source_and_one_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.csv").write_bytes(b"prompt,style_image_uri\ncaf\xe9,a\n")
    assert refusal(lambda: run_job("--from", "none.csv")) == "none.csv: not found"
    assert "latin.csv: is not UTF-8 text (byte 26)" in refusal(lambda: run_job("--from", "latin.csv"))


def test_one_row_id_for_two_different_rows_is_a_problem_and_for_equal_rows_is_not(make: Any) -> None:
    row = '{"row_id": "r", "prompt": "%s", "style_image_uri": "/a.png"}\n'
    assert "row_id = 'r': names a different row at line 1 already" in refusal(
        lambda: make("rows.jsonl", row % "a" + row % "b")
    )
    other_meta = '{"row_id": "r", "prompt": "a", "style_image_uri": "/a.png", "meta_x": "1", "priority": 2}\n'
    assert make("rows.jsonl", row % "a" + other_meta).num_rows == 2


def test_a_column_that_is_none_is_warned_about(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    table = make("rows.jsonl", '{"prompt": "a", "style_image_uri": "/a.png", "num_frame": 8}\n')
    assert table.column_names == ["prompt", "style_image_uri"]
    assert "did you mean 'num_frames'?" in capsys.readouterr().err


def test_a_limit_takes_the_first_rows_and_the_summary_counts(
    make: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "".join(f'{{"prompt": "p{i % 2}", "style_image_uri": "/{i}.png"}}\n' for i in range(10)) + "broken"
    table = make("rows.jsonl", text, "--limit", "3")
    assert table.num_rows == 3
    assert capsys.readouterr().out == "3 rows (2 distinct prompts, 3 distinct styles) written to m.parquet\n"


@pytest.fixture
def styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ink.png", "anime.JPEG", "set/2.png", "set/1.png", "notes.txt", ".hidden.png", "set/.x.png"):
        path = tmp_path / "styles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not decoded here")
    return tmp_path / "styles"


def test_every_prompt_with_every_style_and_a_subfolder_as_several_references(styles: Path) -> None:
    Path("prompts.txt").write_text("\ufeffA wolf.\n\n  # not a comment  \r\n", encoding="utf-8")
    table = run_job("--prompts", "prompts.txt", "--styles", "styles")
    pictures = [
        [f"{styles}/anime.JPEG"],
        [f"{styles}/ink.png"],
        [f"{styles}/set/1.png", f"{styles}/set/2.png"],
    ]
    assert table["prompt"].to_pylist() == ["A wolf."] * 3 + ["# not a comment"] * 3
    assert table["style_image_uri"].to_pylist() == pictures * 2


def test_a_cross_product_for_pictures_that_lie_in_a_bucket(styles: Path) -> None:
    Path("prompts.txt").write_text("A wolf.")
    table = run_job("--prompts", "prompts.txt", "--styles", f"{styles}/", "--style-prefix", "s3://b/styles")
    assert table["style_image_uri"].to_pylist()[2] == ["s3://b/styles/set/1.png", "s3://b/styles/set/2.png"]


def test_a_cross_product_that_cannot_be_made_says_why(styles: Path) -> None:
    Path("prompts.txt").write_text("A wolf.")
    Path("blank.txt").write_text("\n \n")
    Path("empty").mkdir()
    assert "blank.txt: holds no prompt" in refusal(
        lambda: run_job("--prompts", "blank.txt", "--styles", "styles")
    )
    assert "empty: holds no picture" in refusal(
        lambda: run_job("--prompts", "prompts.txt", "--styles", "empty")
    )
    (styles / "set" / "deep").mkdir()
    (styles / "set" / "deep" / "3.png").touch()
    message = refusal(lambda: run_job("--prompts", "prompts.txt", "--styles", "styles"))
    assert "'set/deep/3.png' lies too deep" in message
