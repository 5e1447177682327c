"""The demo model's recipe: which command makes what, in which order, and which gate follows."""

from dataclasses import dataclass, replace
from pathlib import Path

RECIPES = Path(__file__).parent / "recipes"  # one YAML file per training job
_PACKAGE = "examples.demo_model"
EVALUATION_CLIP_SEED = 6001


@dataclass(frozen=True)
class Stage:
    """One step of the chain.

    Attributes:
        does: in words.
        commands: arguments of `python -m`, run in turn.
        made: is there once they have finished.
        hours: on two quiet cores, roughly; the model card has the measured ones.
        gate: arguments of `python -m`; exit code 1 stops the chain.
        optional: run only when it is named.
    """

    name: str
    does: str
    commands: tuple[tuple[str, ...], ...]
    made: Path
    hours: float
    gate: tuple[str, ...] = ()
    optional: bool = False


def stages(work: Path) -> list[Stage]:
    """All of them; everything they write is below `work`."""
    return [*_parts(work), *_data(work), *_model(work), *_result(work), *_depth(work)]


def _parts(work: Path) -> list[Stage]:
    """What the UNet hangs on, and what measures it."""
    judges, encoders = work / "judges", work / "encoders"
    judging = ("--output", str(judges), "--work", str(work / "training" / "judges"))
    return [
        Stage(
            "judges",
            "classifiers that measure all that follows",
            ((f"{_PACKAGE}.train_judges", *judging),),
            judges / "metrics.json",
            0.2,
            _gate("judges", judges, work),
        ),
        Stage(
            "autoencoder",
            "pictures of 64 x 64 to latents of 16 x 16 and back",
            (("examples.encoders.train_autoencoder", *_into(encoders, work, "autoencoder")),),
            encoders / "vae" / "config.json",
            0.2,
            _gate("autoencoder", encoders, work),
        ),
        Stage(
            "clip",
            "text and vision towers",
            (("examples.encoders.train_clip", *_into(encoders, work, "clip"), "--no-tokenizer"),),
            encoders / "clip.json",
            0.3,
            _gate("clip", encoders, work),
        ),
        Stage(
            "evaluation_clip",
            "another CLIP, of other seeds, which only measures",
            (
                (
                    "examples.encoders.train_clip",
                    *_into(work / "evaluation_clip", work, "evaluation_clip"),
                    *("--no-tokenizer", "--seed", str(EVALUATION_CLIP_SEED)),
                ),
            ),
            work / "evaluation_clip" / "clip.json",
            0.3,
        ),
    ]


def _data(work: Path) -> list[Stage]:
    styled = ("--stills", "14000", "--styles", "6000", "--seed", "21")
    return [
        _drawn(work, "neutral_stills", ("--stills", "8000", "--style", "neutral", "--seed", "22")),
        _drawn(work, "more_neutral_stills", ("--stills", "16000", "--style", "neutral", "--seed", "23")),
        _drawn(work, "neutral_clips", ("--clips", "6000", "--style", "neutral", "--seed", "11")),
        _drawn(work, "styled_stills", styled),
        _drawn(work, "titled_stills", (*styled, "--name-styles")),
    ]


def _model(work: Path) -> list[Stage]:
    start = work / "start"
    pictures, mixed, titled, styled, clips = (
        str(work / "data" / names / "manifest.parquet")
        for names in ("[mn]*_stills", "[mns]*", "[nt]*", "styled_stills", "neutral_clips")
    )
    first, then, base, style = (
        _model_of(work, name) for name in ("base_stills", "base_clips", "base", "style")
    )
    with_style = ("--style-data", styled)
    return [
        Stage(
            "start",
            "new UNet and adapter around the encoders",
            ((f"{_PACKAGE}.start", "--encoders", str(work / "encoders"), "--output", str(start)),),
            start / "fingerprint",
            0.01,
        ),
        _trained(work, "base_stills", "jobs.train_base", start, pictures, hours=1.1),
        _trained(work, "base_clips", "jobs.train_base", first, mixed, hours=1.2, gate="base"),
        _trained(work, "base", "jobs.train_base", then, titled, hours=0.5, gate="base"),
        _trained(work, "style", "jobs.train_style", base, styled, hours=0.5, gate="style"),
        _trained(
            work, "temporal", "jobs.train_temporal", style, clips, with_style, hours=0.2, gate="temporal"
        ),
    ]


def _result(work: Path) -> list[Stage]:
    trained, shipped, evaluation = _model_of(work, "temporal"), work / "model", work / "evaluation"
    finishing = (f"{_PACKAGE}.finish", "--model", str(trained), "--output", str(shipped))
    runs = [
        argument
        for name in ("base_stills", "base_clips", "base", "style", "temporal")
        for argument in ("--run", f"{name}={work / name}")
    ]
    return [
        Stage("half", "half precision, in small files", (finishing,), shipped / "fingerprint", 0.01),
        Stage(
            "evaluation",
            "the table: 400 videos per row",
            (
                (
                    f"{_PACKAGE}.evaluate",
                    *("--model", str(shipped), "--stage1", str(_model_of(work, "style"))),
                    *("--judges", str(work / "judges"), "--evaluation-clip", str(work / "evaluation_clip")),
                    *("--output", str(evaluation)),
                ),
            ),
            evaluation / "metrics.json",
            1.5,
        ),
        Stage(
            "card",
            "the model card",
            ((*finishing, "--evaluation", str(evaluation), *runs),),
            shipped / "metrics.json",
            0.01,
        ),
    ]


def _depth(work: Path) -> list[Stage]:
    """A depth adapter for the finished model, which stays as it is: the result is another model directory."""
    drawn = ("--stills", "6000", "--clips", "800", "--style", "neutral", "--depth", "--seed", "31")
    data = str(work / "data" / "depth_data" / "manifest.parquet")
    stages = [
        _drawn(work, "depth_data", drawn),
        _trained(
            work, "depth", "jobs.train_depth", _model_of(work, "temporal"), data, hours=0.4, gate="depth"
        ),
    ]
    return [replace(one, optional=True) for one in stages]


def _drawn(work: Path, name: str, arguments: tuple[str, ...]) -> Stage:
    folder = work / "data" / name
    command = ("examples.demo_world", "--output", str(folder), *arguments)
    return Stage(name, "training data", (command,), folder / "manifest.parquet", 0.1)


def _trained(
    work: Path,
    name: str,
    job: str,
    model: Path,
    data: str,
    more: tuple[str, ...] = (),
    *,
    hours: float,
    gate: str = "",
) -> Stage:
    command = (
        *(job, "--config", str(RECIPES / f"{name}.yaml")),
        *("--data", data, *more, "--model", str(model), "--output", str(work / name)),
    )
    made = _model_of(work, name)
    gated = _gate(gate, made, work) if gate else ()
    return Stage(name, f"{job} with recipes/{name}.yaml", (command,), made / "fingerprint", hours, gated)


def _model_of(work: Path, name: str) -> Path:
    return work / name / "model"


def _gate(name: str, folder: Path, work: Path) -> tuple[str, ...]:
    return (f"{_PACKAGE}.gates", name, "--model", str(folder), "--judges", str(work / "judges"))


def _into(output: Path, work: Path, name: str) -> tuple[str, ...]:
    return "--output", str(output), "--work", str(work / "training" / name)
