"""Measure the recognition world: its gates, and methods trained on its videos.

Each arm is measured once per repetition, which seeds weights, videos and the order of samples.
Videos, runs and scores are kept in the folder and reused, so an interrupted command continues.

    python benchmarks/recognition_world.py --folder recognition --worlds develop --repetitions 1
    python benchmarks/recognition_world.py --folder recognition --worlds report --repetitions 3

Arms: `filters`, `filters-3x3` and `colours` need no training; `supervised` is the encoder of
`untrained` trained with labels; `midway` is `recognition.midway_tiny`, with both terms, `dino` is
DINO on pairs; `gap-0` and `dino-gap-0` have both frames of a pair at one time.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midway.analysis.perturbation import fast_dtype
from midway.data.synthetic.shape_world import SHAPE_CLASSES
from midway.data.synthetic.write import write_videos
from midway.errors import INTERRUPTED
from midway.evals.probes.baselines import baselines
from midway.evals.probes.linear import segmentation_score
from midway.evals.probes.recognition import (
    LabelledFrames,
    chance,
    chance_of_objects,
    recognition,
)
from midway.experiments.base import Experiment, train
from midway.experiments.recognition import (
    ENCODER,
    LABELLED,
    NUM_VIDEOS,
    PROBE_WORLDS,
    WORLD,
    dino_tiny,
    midway_tiny,
)
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import VisionTransformer
from midway.models.weights.sources import load_encoder
from midway.nn.eval_mode import evaluating
from midway.nn.images import normalise
from midway.train.schedules import warmup_cosine

NUM_CLASSES = len(SHAPE_CLASSES)
SUPERVISED_STEPS, SUPERVISED_BATCH = 2000, 16
PEAK_LR, WARMUP_STEPS, WEIGHT_DECAY = 1.5e-3, 50, 0.04
SAVE_EVERY = 250
"""Steps between two states of the supervised training, from which it resumes."""
RUNS: dict[str, Callable[[], Experiment]] = {
    "midway": midway_tiny,
    "gap-0": lambda: at_one_time(midway_tiny()),
    "dino": dino_tiny,
    "dino-gap-0": lambda: at_one_time(dino_tiny()),
}
FREE = ("filters", "filters-3x3", "colours")
ARMS = (*FREE, "untrained", "supervised", *RUNS)


def main() -> None:
    """Measure each arm, and print one line per arm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("recognition"))
    parser.add_argument("--worlds", choices=[*PROBE_WORLDS], default="develop")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="steps of the runs; 0 for all")
    options = parser.parse_args()
    frames = probed_frames(options.worlds)
    found = {"chance": chance(frames[1], NUM_CLASSES)}
    found["chance with exact outlines"] = chance_of_objects(frames[1], NUM_CLASSES)
    sys.stdout.write(json.dumps(found) + "\n")
    for arm in options.arms:
        scores = [
            scored(options.folder, options.worlds, arm, seed, options.steps, frames)
            for seed in range(options.repetitions)
        ]
        sys.stdout.write(json.dumps({"arm": arm} | summary(scores)) + "\n")
        sys.stdout.flush()


def probed_frames(worlds: str) -> tuple[LabelledFrames, LabelledFrames]:
    """Render the training and the test frames of the readouts."""
    training, test = PROBE_WORLDS[worlds]
    return LabelledFrames.render(WORLD, training, 2), LabelledFrames.render(WORLD, test, 1)


def scored(
    folder: Path,
    worlds: str,
    arm: str,
    seed: int,
    steps: int,
    frames: tuple[LabelledFrames, LabelledFrames],
) -> dict[str, float]:
    """Return the scores of one repetition of an arm, from the folder if it is done."""
    file = folder / "scores" / worlds / f"{arm}-{seed}-{steps}.json"
    if not file.exists():
        encoders, extra = built(folder, arm, seed, steps, frames[1])
        scores = extra | {
            f"{name} {readout}": value
            for name, encoder in encoders.items()
            for readout, value in read_out(encoder, *frames, is_free=arm in FREE).items()
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(scores))
    return json.loads(file.read_text())


def built(
    folder: Path,
    arm: str,
    seed: int,
    steps: int,
    test: LabelledFrames,
) -> tuple[dict[str, Encoder], dict[str, float]]:
    """Return the encoders of an arm by name, and scores that are measured on the way."""
    if arm in FREE:
        return {arm: baselines(ENCODER.patch_size, seed)[arm]}, {}
    if arm in RUNS:
        run = trained(folder, arm, seed, steps)
        return {
            weights: load_encoder(str(run), weights=weights) for weights in ("student", "teacher")
        }, {}
    torch.manual_seed(seed)
    encoder = VisionTransformer(ENCODER)
    extra = {}
    if arm == "supervised":
        extra = {
            "own head": supervised(
                encoder,
                seed,
                steps or SUPERVISED_STEPS,
                test,
                folder / "runs" / f"supervised-{seed}-{steps}.pt",
            )
        }
    return {arm: encoder.eval()}, extra


def read_out(
    encoder: Encoder, training: LabelledFrames, test: LabelledFrames, *, is_free: bool
) -> dict[str, float]:
    """Return the mIoU of both readouts, of baselines also with random classes in training."""
    score = recognition(encoder, training, test, NUM_CLASSES)
    found = {"linear": score.linear.miou, "k-NN": score.knn.miou}
    if is_free:
        training = training.with_random_classes(NUM_CLASSES, seed=0)
        shuffled = recognition(encoder, training, test, NUM_CLASSES)
        found |= {"shuffled linear": shuffled.linear.miou, "shuffled k-NN": shuffled.knn.miou}
    return found


def trained(folder: Path, arm: str, seed: int, steps: int) -> Path:
    """Return the finished run of a method, trained or resumed if it is not."""
    videos = folder / "videos" / str(seed)
    for number in range(seed * NUM_VIDEOS, (seed + 1) * NUM_VIDEOS):
        if not (videos / f"world_{number:04d}.mp4").exists():
            write_videos(videos, WORLD, seeds=[number])
    base = RUNS[arm]()
    run = folder / "runs" / f"{arm}-{seed}-{steps}"
    precision = "bf16-mixed" if fast_dtype(torch.device("cpu")) == torch.bfloat16 else "32-true"
    experiment = replace(
        base,
        data=replace(base.data, root=str(videos)),
        run=replace(
            base.run,
            folder=run,
            seed=seed,
            steps=steps or base.run.steps,
            precision=precision,
        ),
    )
    if train(experiment, resume=(run / "config.json").exists()).interrupted:
        raise SystemExit(INTERRUPTED)
    return run


def at_one_time(experiment: Experiment) -> Experiment:
    """Return the experiment with pairs of one frame and itself."""
    return replace(experiment, data=replace(experiment.data, gap_seconds=(0.0, 0.0)))


def supervised(
    encoder: VisionTransformer,
    seed: int,
    steps: int,
    test: LabelledFrames,
    state: Path,
) -> float:
    """Train an encoder and a linear head with labels; return the head's mIoU in percent.

    The head predicts the classes of all pixels of a patch from its token.
    """
    labelled = LabelledFrames.render(WORLD, LABELLED, 2)
    patch = encoder.config.patch_size
    head = nn.Linear(encoder.width, patch * patch * NUM_CLASSES)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(seed)
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        first = saved["step"]
        encoder.load_state_dict(saved["encoder"])
        head.load_state_dict(saved["head"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"])
    encoder.train()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(
                step, steps, warmup_steps=WARMUP_STEPS, peak=PEAK_LR, final=1e-6
            )
        images, classes = drawn(labelled, generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = pixel_logits(encoder, head, images)
        loss = F.cross_entropy(logits.float(), classes)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state.parent.mkdir(parents=True, exist_ok=True)
            saved = {
                "step": step + 1,
                "encoder": encoder.state_dict(),
                "head": head.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
            }
            torch.save(saved, state)
            note(f"supervised {seed}: step {step + 1} of {steps}, loss {loss.item():.3f}")
    with torch.no_grad(), evaluating(encoder):
        batches = normalise(test.images.permute(0, 3, 1, 2) / 255).split(SUPERVISED_BATCH)
        predicted = torch.cat([pixel_logits(encoder, head, each).argmax(1) for each in batches])
    return segmentation_score(predicted, test.classes, NUM_CLASSES).miou


def note(text: str) -> None:
    """Print progress to the terminal, apart from the results."""
    sys.stderr.write(f"{text}\n")


def drawn(labelled: LabelledFrames, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a batch of normalised images and their classes, flipped at random from left to right."""
    chosen = torch.randint(len(labelled.images), (SUPERVISED_BATCH,), generator=generator)
    images = normalise(labelled.images[chosen].permute(0, 3, 1, 2) / 255)
    classes = labelled.classes[chosen]
    axes = [-1] if torch.rand((), generator=generator) < 0.5 else []
    return images.flip(axes), classes.flip(axes)


def pixel_logits(encoder: VisionTransformer, head: nn.Linear, images: Tensor) -> Tensor:
    """Return logits (batch, classes, height, width)."""
    (features,) = encoder.maps(images, (-1,))
    # (batch, rows, columns, classes * patch * patch) -> (batch, classes, height, width)
    patches = head(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return F.pixel_shuffle(patches, encoder.config.patch_size)


def summary(scores: list[dict[str, float]]) -> dict[str, Any]:
    """Return mean, smallest and largest of each score over the repetitions."""
    return {
        name: [round(value, 2) for value in (fmean(values), min(values), max(values))]
        for name in scores[0]
        if (values := [each[name] for each in scores])
    } | {"n": len(scores)}


if __name__ == "__main__":
    main()
