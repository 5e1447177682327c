"""Training manifests from folders of pictures and videos."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from actors.storage import Storage
from actors.training_rows import read_training_rows
from examples.s3_server import S3Server
from jobs.train_manifest import main
from schemas.manifest import ManifestError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder `data` in the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(folder: Path, **files: str | None) -> None:
    """Files by name ("__" is a slash, "_dot_" a dot); None is a picture or video, whose content does not matter."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text is not None else "not decoded here", encoding="utf-8")


def run_job(*argv: str, code: int = 0, source: str = "data") -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["jobs.train_manifest", "--folder", source, "--output", "m.parquet", *argv])
        assert main() == code
    rows: list[dict[str, Any]] = pq.read_table("m.parquet").to_pylist()
    return rows


def refusal(*argv: str) -> str:
    with pytest.raises(ManifestError) as caught:
        run_job(*argv)
    assert not Path("m.parquet").exists(), "a refused folder must leave no manifest"
    return str(caught.value)


def captions(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["uri"].rsplit("/", 1)[1]: row["caption"] for row in rows}


def test_sidecars_styles_from_folders_and_kinds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, ink__a_dot_png=None, ink__a_dot_txt="\ufeff a boat\r\n on the sea \n")
    write(folder, ink__deep__b_dot_JPEG=None, ink__deep__b_dot_TXT="a fox")
    write(folder, c_dot_MP4=None, c_dot_txt="waves", notes_dot_txt="no picture's", _dot_hidden_dot_png=None)
    assert run_job() == [
        {"uri": f"{folder}/c.MP4", "caption": "waves", "style_id": None, "kind": "video"},
        {"uri": f"{folder}/ink/a.png", "caption": "a boat on the sea", "style_id": "ink", "kind": "image"},
        {"uri": f"{folder}/ink/deep/b.JPEG", "caption": "a fox", "style_id": "ink", "kind": "image"},
    ]
    assert capsys.readouterr() == ("2 images and 1 videos (1 styles) written to m.parquet\n", "")
    assert {row["style_id"] for row in run_job("--style-ids", "none")} == {None}


def test_training_reads_what_was_written(folder: Path) -> None:
    write(folder, ink__a_dot_png=None, ink__a_dot_txt="a boat", b_dot_mp4=None, b_dot_txt="waves")
    run_job()
    rows = read_training_rows(Storage(), ["m.parquet"])
    assert (rows.counts, rows.styles, dict(rows.skipped), rows.warnings) == (
        {"image": 1, "video": 1},
        1,
        {},
        [],
    )


def test_imagefolder_metadata_as_jsonl_and_csv_and_a_sidecar_that_wins(folder: Path) -> None:
    lines = [
        {"file_name": "a.png", "text": "a boat", "style_id": 7},
        {"file_name": "sub/b.png", "text": "a\nfox"},
        {"file_name": "./c.png", "caption": "of the metadata", "other": [1]},
    ]
    write(folder, a_dot_png=None, sub__b_dot_png=None, c_dot_png=None, c_dot_txt="of the sidecar")
    write(folder, metadata_dot_jsonl="".join(json.dumps(line) + "\n" for line in lines))
    write(folder, oil__d_dot_webp=None, oil__metadata_dot_csv='file_name,text\nd.webp,"a hill, far"\n')
    rows = run_job()
    assert captions(rows) == {
        "a.png": "a boat",
        "b.png": "a fox",
        "c.png": "of the sidecar",
        "d.webp": "a hill, far",
    }
    assert [row["style_id"] for row in rows] == ["7", None, "oil", "sub"]


def test_a_name_is_a_caption_only_when_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, a_red_fox_dot_png=None, b_dot_png=None, b_dot_txt="a boat")
    (folder / "000123.png").touch()
    (folder / "two-hills_01.v2.png").touch()
    assert captions(run_job(code=1)) == {"b.png": "a boat"}
    assert "3 left out, no caption" in capsys.readouterr().err
    assert captions(run_job("--caption-from-name", code=1)) == {
        "a_red_fox.png": "a red fox",
        "b.png": "a boat",
        "two-hills_01.v2.png": "two hills 01 v2",
    }
    assert "1 left out, no caption, and none in its name: '000123.png'" in capsys.readouterr().err


def test_captions_lose_their_style_only_when_asked_to(folder: Path) -> None:
    write(folder, a_dot_png=None, a_dot_txt="A boat on the sea, oil painting")
    assert captions(run_job()) == {"a.png": "A boat on the sea, oil painting"}
    assert captions(run_job("--destyle")) == {"a.png": "A boat on the sea"}


def test_what_is_left_out_is_counted_and_the_first_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, good_dot_png=None, good_dot_txt="a boat", blank_dot_png=None, blank_dot_txt=" \n")
    for index in range(7):
        (folder / f"x{index}.png").touch()
    write(folder, long_dot_png=None, long_dot_txt="a" * 4097, huge_dot_png=None, huge_dot_txt="a" * 20_000)
    write(folder, latin_dot_png=None)
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "gone.png", "text": "x"}\n{"file_name": "../../etc/passwd", "text": "x"}\n[1]\n{"text": "x"}\n'
        '{"file_name": "good.png", "text": 5}\n{"file_name": "x6.png", "text": "a"}\n'
        '{"file_name": "x6.png", "text": "b"}\n'
    )
    assert captions(run_job(code=1)) == {"good.png": "a boat"}
    told = capsys.readouterr().err
    for line in (
        "7 left out, no caption (in NAME.txt beside it, or in metadata.jsonl or metadata.csv): "
        "'blank.png', 'x0.png', 'x1.png', 'x2.png', 'x3.png' and 2 more",
        "2 left out, the metadata names it, but there is no such picture or video: 'gone.png', ",
        '2 left out, a line of metadata that cannot be used: "metadata.jsonl, line 3: must be an object',
        "1 left out, its caption has more than 4096 characters: 'long.png'",
        "1 left out, the text beside it has more than 16384 bytes: 'huge.png'",
        "1 left out, the text beside it is not UTF-8: 'latin.png'",
        "1 left out, the metadata describes it twice, differently: 'x6.png'",
    ):
        assert f"warning: {line}" in told
    assert told.count("\n") == 7


def test_hostile_names_are_data_and_what_cannot_be_written_is_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ["100%25 é.png", "a?b#c.png", "s3:x.png", "-rf.png", "$(id);'\".png", "[bold]*.png"]
    for name in good:
        (folder / name).touch()
        (folder / f"{name[:-4]}.txt").write_text("a boat")
    bad = [b"new\nline.png", b"esc\x1b[2J.png", b"not-utf8-\xff.png"]
    for raw in bad:
        (folder / os.fsdecode(raw)).touch()
        (folder / os.fsdecode(raw[:-4] + b".txt")).write_text("a boat")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop").symlink_to(folder)
    rows = run_job(code=1)
    assert {row["uri"] for row in rows} == {f"{folder}/{name}" for name in good}
    assert [read_training_rows(Storage(), ["m.parquet"]).row("image", i).location for i in range(6)] == [
        row["uri"] for row in rows
    ]
    told = capsys.readouterr().err
    assert "2 left out, its name holds a control character" in told
    assert "1 left out, its name, folder or caption is not UTF-8 text: 'not-utf8-\\udcff.png'" in told
    assert told.isascii()
    assert "\x1b" not in told


@pytest.mark.parametrize("name", ["data", "nowhere", "data/notes.txt"])
def test_a_folder_without_pictures_is_named(folder: Path, name: str) -> None:
    write(folder, notes_dot_txt="a boat")
    with pytest.raises(ManifestError, match=rf"{name}: holds no picture or video \(png, jpg"):
        run_job(source=name)


def test_a_folder_of_which_nothing_can_be_used_writes_nothing(folder: Path) -> None:
    write(folder, a_dot_png=None)
    assert refusal().startswith("data: nothing in it can be used\n  1 left out, no caption")


def test_metadata_twice_in_one_folder_and_metadata_that_is_no_csv(folder: Path) -> None:
    write(folder, a_dot_png=None, metadata_dot_csv='file_name,text\na.png,"b\n')
    assert "is not valid CSV" in refusal()
    write(folder, metadata_dot_jsonl="{}")
    assert "only one can be right" in refusal()


def test_videos_that_all_have_a_style_are_pointed_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, clips__a_dot_mp4=None, clips__a_dot_txt="waves")
    run_job()
    assert "note: every video has a style_id" in capsys.readouterr().err
    run_job("--style-ids", "none")
    assert capsys.readouterr().err == ""


def test_the_same_folder_gives_the_same_bytes(folder: Path) -> None:
    write(folder, b_dot_png=None, b_dot_txt="b", a_dot_png=None, a_dot_txt="a")
    run_job()
    first = Path("m.parquet").read_bytes()
    run_job()
    assert Path("m.parquet").read_bytes() == first


def test_from_object_storage_to_object_storage(
    s3_env: S3Server, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = s3_env.client()
    put: Callable[[str, bytes], Any] = lambda key, body: client.put_object(  # noqa: E731
        Bucket="styles", Key=f"train-manifest/{key}", Body=body
    )
    for name in ("ink/a b%.PNG", "ink/c.png", "d.mp4", "no.png"):
        put(name, b"not decoded here")
    put("ink/a b%.txt", b"a boat")
    put(
        "metadata.jsonl",
        b'{"file_name": "ink/c.png", "text": "a fox"}\n{"file_name": "d.mp4", "text": "waves"}\n',
    )
    target = "s3://outputs/train-manifest/m.parquet"
    argv = ["jobs.train_manifest", "--folder", "s3://styles/train-manifest/", "--output", target]
    monkeypatch.setattr("sys.argv", argv)
    assert main() == 1
    assert "'no.png'" in capsys.readouterr().err
    body = client.get_object(Bucket="outputs", Key="train-manifest/m.parquet")["Body"].read()
    assert pq.read_table(io.BytesIO(body)).to_pylist() == [
        {"uri": f"s3://styles/train-manifest/{name}", "caption": caption, "style_id": style, "kind": kind}
        for name, caption, style, kind in (
            ("d.mp4", "waves", None, "video"),
            ("ink/a b%.PNG", "a boat", "ink", "image"),
            ("ink/c.png", "a fox", "ink", "image"),
        )
    ]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--folder", "", "--output", "m.parquet"], "--folder ''"),
        (["--folder", "s3://", "--output", "m.parquet"], "names no bucket"),
        (["--folder", "x", "--output", "m.csv"], "must end in .parquet"),
        (["--folder", "x", "--output", "https://h/m.parquet"], "scheme 'https'"),
        (["--folder", "x", "--output", "m.parquet", "--style-ids", "all"], "one of from-folders, none"),
    ],
)
def test_wrong_flags(
    argv: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["jobs.train_manifest", *argv])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_help_says_what_is_a_caption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["jobs.train_manifest", "--help"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    for word in ("NAME.txt", "metadata.jsonl", "--caption-from-name", "--style-ids", "--destyle"):
        assert word in told
