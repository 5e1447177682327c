"""The baseline of the training benchmark: a plain loop over micro-batches that lie ready in memory.

No Ray, no data pipeline, no logs, no checkpoints. Of this project it uses the model library, the training model with
its random numbers and the reader's own micro-batches, so that it takes the very steps that the job takes.

python -m benchmarks.bare_training --config RUN.json --steps 70 --threads 2 --precision float32 --output MARKS.jsonl
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel

from actors.storage import Storage
from actors.training_samples import TrainingSamples
from pipeline.model_info import read_model_info
from pipeline.train import data_plan
from pipeline.train_model import load_model, use_half_precision_where_frozen
from pipeline.train_state import learning_rate
from schemas.train_run import TrainStyleRun
from stylecrafter.tokenizer import OpenClipTokenizer
from stylecrafter.training import TrainingModel, draw

# Shape suffixes: B rows, T frames, H height, W width, C colours, S text tokens.


@dataclass(frozen=True)
class ReadyBatch:
    """One micro-batch on the model's device, captions as tokens."""

    positions: list[int]
    target_BTHWC: torch.Tensor
    token_ids_BS: torch.Tensor
    reference_B3HW: torch.Tensor


def read_batches(
    run: TrainStyleRun, tokenizer: OpenClipTokenizer, count: int, device: str
) -> list[ReadyBatch]:
    """The run's first micro-batches: decoded, cropped, tokenised."""
    storage = Storage()
    plan = data_plan(run, read_model_info(storage, run.model), storage)
    samples = TrainingSamples(plan)
    try:
        read = [samples.micro_batch(index) for index in range(count)]
    finally:
        samples.close()
    return [
        ReadyBatch(
            positions=batch.positions_B.tolist(),
            target_BTHWC=torch.from_numpy(batch.target_BTHWC).to(device),
            token_ids_BS=tokenizer.prompt_ids(batch.captions).to(device),
            reference_B3HW=torch.from_numpy(batch.reference_B3HW).to(device),
        )
        for batch in read
    ]


def train(
    model: TrainingModel, batches: list[ReadyBatch], run: TrainStyleRun, precision: str
) -> list[dict[str, float]]:
    """One optimiser step per micro-batch.

    Returns:
        One mark for every `log_every` steps: `step`, `time` (seconds since the epoch) and the mean `loss` since the
        mark before.
    """
    parameters = list(model.trainable_parameters().values())
    optimizer = torch.optim.AdamW(
        parameters, lr=run.learning_rate, weight_decay=run.weight_decay, foreach=True
    )
    ema = EMAModel(parameters, decay=run.ema_decay, use_ema_warmup=True, power=0.75)
    device = parameters[0].device.type
    marks, losses = [], []
    for step, batch in enumerate(batches):
        draws = draw(
            run.seed,
            "image",
            batch.positions,
            model.latent_shape(*batch.target_BTHWC.shape[1:4]),
            model.options,
            model.scheduler.config.num_train_timesteps,
        )
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(
                batch.target_BTHWC, batch.token_ids_BS, batch.reference_B3HW, draws.to(device)
            ).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, run.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.step(parameters)
        losses.append(loss.detach())
        if (step + 1) % run.log_every == 0:
            values = torch.stack(losses).tolist()  # waits for the device
            marks.append({"step": step + 1, "time": time.time(), "loss": statistics.fmean(values)})
            losses.clear()
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="the job's config as JSON")
    parser.add_argument("--steps", type=int, required=True, help="how many of the run's steps to take")
    parser.add_argument("--threads", type=int, required=True, help="torch threads")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--output", type=Path, required=True, help="one line per mark")
    given = parser.parse_args()

    run = TrainStyleRun.model_validate_json(given.config.read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(given.threads)
    pipeline, model = load_model(run, Path(run.model))
    if given.precision == "bfloat16":
        use_half_precision_where_frozen(model)
    model.to(device)
    batches = read_batches(run, pipeline.tokenizer, given.steps, device)
    marks = train(model, batches, run, given.precision)
    given.output.write_text("".join(json.dumps(mark) + "\n" for mark in marks))


if __name__ == "__main__":
    main()
