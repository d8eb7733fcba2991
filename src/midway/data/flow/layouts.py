"""Layouts of flow datasets: functions that find the pairs of a split below a root."""

import re
from collections.abc import Iterator
from pathlib import Path

from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.flow.pairs import FlowPair
from midway.errors import MidwayError

SINTEL_SUBVAL = ("temple_2", "temple_3")
"""Training scenes of MPI-Sintel that CroCo v2 uses for validation."""
SPRING_SUBVAL = "0041"
"""Training scene of Spring held out for validation."""
KITTI_SUBVAL_PAIRS = 10
"""Number of the last training pairs of KITTI held out for validation."""
THINGS_TEST_PAIRS = 7_866
"""Test pairs of the left camera in one rendering."""
THINGS_1024_DROPPED, THINGS_1024_STEP = 698, 7
"""Dropped pairs at the end, and stride, of split `test1024`."""


def sintel(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield pairs of both renderings, with occlusion masks where the dataset has them."""
    root = _first(root, "training", ".")
    for rendering in ("clean", "final"):
        for scene in _folders(root / rendering):
            is_val = scene.name in SINTEL_SUBVAL
            if split == ("subtrain" if is_val else "subval"):
                continue
            for flow in sorted((root / "flow" / scene.name).glob("frame_*.flo")):
                mask = root / "occlusions" / scene.name / f"{flow.stem}.png"
                yield FlowPair(
                    source=str(scene / f"{flow.stem}.png"),
                    target=str(scene / f"{_next(flow.stem)}.png"),
                    flow=str(flow),
                    sequence=scene.name,
                    rendering=rendering,
                    occlusions=str(mask) if mask.is_file() else "",
                )


def chairs(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield the numbered pairs; splits are in the authors' list."""
    folder = _first(root, "data", "FlyingChairs_release/data", ".")
    names = ("img1.ppm", "img2.ppm", "_flow.flo")
    flows = sorted(folder.glob("[0-9]*_flow.flo"))
    if not flows:  # the examples that the authors publish with FlowNet 2
        names = ("img0.ppm", "img1.ppm", "-gt.flo")
        flows = sorted(folder.glob("*-gt.flo"))
    wanted = {"train": "1", "val": "2"}.get(split)
    split_of = _chairs_split(root, len(flows)) if wanted and flows else [None] * len(flows)
    for flow, belongs in zip(flows, split_of, strict=True):
        if belongs == wanted:
            stem = f"{flow.parent}/{flow.name.removesuffix(names[2])}{names[2][0]}"
            yield FlowPair(
                source=stem + names[0], target=stem + names[1], flow=str(flow), sequence=""
            )


def _chairs_split(root: Path, num_pairs: int) -> list[str]:
    """Read the split of each pair: "1" for training, "2" for validation."""
    names = ("chairs_split.txt", "FlyingChairs_train_val.txt")
    found = [
        path
        for folder in (root, root.parent)
        for name in names
        if (path := folder / name).is_file()
    ]
    if not found:
        raise MidwayError(f"chairs: no {' or '.join(names)} in {root}; put one there")
    parts = found[0].read_text().split()
    if len(parts) != num_pairs or set(parts) - {"1", "2"}:
        raise MidwayError(
            f"chairs: {found[0]} has {len(parts)} lines for {num_pairs} pairs, or one that is not "
            "1 or 2; fetch the dataset or the list again"
        )
    return parts


def things(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield pairs of the left camera in both directions; flow without a target frame is omitted.

    `test1024` is every 7th test pair without the last 698, ordered by folder, source and target, so
    that a sequence's future pairs precede its past ones (the subset of CroCo v2, not of UniMatch).
    """
    part = "TRAIN" if split == "train" else "TEST"
    found: list[tuple[str, int, int, str]] = []
    for sequence in sorted((root / "optical_flow" / part).glob("*/*")):
        name = sequence.relative_to(root / "optical_flow").as_posix()
        for direction, step in (("future", 1), ("past", -1)):
            flows = sorted((sequence / f"into_{direction}" / "left").glob("OpticalFlow*_L.pfm"))
            for flow in flows[:-1] if step == 1 else flows[1:]:
                source = int(flow.stem.split("_")[1])
                found.append((name, source, source + step, str(flow)))
    found.sort()
    if split == "test1024":
        if len(found) != THINGS_TEST_PAIRS:
            raise MidwayError(
                f"things: {len(found)} test pairs below {root}, split 'test1024' is defined on "
                f"{THINGS_TEST_PAIRS}; fetch the rest, or use split 'test'"
            )
        found.sort(key=lambda pair: (str(Path(pair[3]).parent), *pair[1:3]))
        found = found[: len(found) - THINGS_1024_DROPPED : THINGS_1024_STEP]
    for rendering in ("clean", "final"):
        frames = _first(root, f"frames_{rendering}pass", f"frames_{rendering}pass_webp")
        # Both archives have WebP too, which unpacks below either name.
        suffix = ".png"
        if found and (frames / found[0][0] / f"left/{found[0][1]:04d}.webp").is_file():
            suffix = ".webp"
        for name, source, target, flow in found if frames.is_dir() else ():
            yield FlowPair(
                source=f"{frames}/{name}/left/{source:04d}{suffix}",
                target=f"{frames}/{name}/left/{target:04d}{suffix}",
                flow=flow,
                sequence=name,
                rendering=rendering,
            )


def tartanair(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield pairs of the left camera."""
    # Unpacked archives often repeat the environment's name.
    folders = [*root.glob("*/*/P*/flow"), *root.glob("*/*/*/P*/flow")]
    for folder in sorted(folders):
        images = f"{folder.parent}/image_left"
        for flow in sorted(folder.glob("[0-9]*_[0-9]*_flow.npy")):
            source, target, _ = flow.stem.split("_")
            yield FlowPair(
                source=f"{images}/{source}_left.png",
                target=f"{images}/{target}_left.png",
                flow=str(flow),
                sequence="/".join(folder.parts[-4:-1]),
            )


def kitti(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield the pairs of KITTI 2012 or 2015; `subval` is the last ten."""
    root = _first(root, "training", ".")
    images = _first(root, "image_2", "colored_0")
    flows = sorted(_first(root, "flow_occ", "flow").glob("[0-9]*_10.png"))
    chosen = {"all": flows, "subtrain": flows[:-KITTI_SUBVAL_PAIRS]}
    for flow in chosen.get(split, flows[-KITTI_SUBVAL_PAIRS:]):
        number = flow.stem.removesuffix("_10")
        yield FlowPair(
            source=f"{images}/{number}_10.png",
            target=f"{images}/{number}_11.png",
            flow=str(flow),
            sequence=number,
        )


def hd1k(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield pairs of consecutive frames; the flow of a last frame is omitted."""
    root = _first(root, "hd1k", ".")
    images = root / "hd1k_input/image_2"
    for flow in sorted((root / "hd1k_flow_gt/flow_occ").glob("[0-9]*_[0-9]*.png")):
        target = images / f"{_next(flow.stem)}.png"
        if target.is_file():
            yield FlowPair(
                source=str(images / flow.name),
                target=str(target),
                flow=str(flow),
                sequence=flow.stem.partition("_")[0],
            )


def vkitti2(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield pairs of both cameras and directions in all variants of the scenes."""
    for variant in sorted(root.glob("Scene*/*")):
        for direction, step in (("forwardFlow", 1), ("backwardFlow", -1)):
            for folder in _folders(variant / "frames" / direction):
                frames = variant / "frames/rgb" / folder.name
                for flow in sorted(folder.glob("*_[0-9]*.png")):
                    source = int(flow.stem.rpartition("_")[2])
                    yield FlowPair(
                        source=f"{frames}/rgb_{source:05d}.jpg",
                        target=f"{frames}/rgb_{source + step:05d}.jpg",
                        flow=str(flow),
                        sequence=f"{variant.parent.name}/{variant.name}",
                        is_vkitti2=True,
                    )


def spring(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield pairs of both cameras and directions; flow has twice the resolution of the images.

    Training takes every second row and column, as CroCo v2 does.
    """
    for scene in _folders(_first(root, "train", ".")):
        if split == ("subtrain" if scene.name == SPRING_SUBVAL else "subval"):
            continue
        for direction, step in (("FW", 1), ("BW", -1)):
            for side in ("left", "right"):
                frames = f"{scene}/frame_{side}/frame_{side}"
                for flow in sorted((scene / f"flow_{direction}_{side}").glob("flow_*.flo5")):
                    source = int(flow.stem.rpartition("_")[2])
                    yield FlowPair(
                        source=f"{frames}_{source:04d}.png",
                        target=f"{frames}_{source + step:04d}.png",
                        flow=str(flow),
                        sequence=scene.name,
                        flow_stride=2,
                    )


def middlebury(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield the pairs of frames 10 and 11."""
    images, flows = _first(root, "other-data", "."), _first(root, "other-gt-flow", ".")
    for scene in _folders(flows):
        if (scene / "flow10.flo").is_file():
            yield FlowPair(
                source=str(images / scene.name / "frame10.png"),
                target=str(images / scene.name / "frame11.png"),
                flow=str(scene / "flow10.flo"),
                sequence=scene.name,
            )


def _first(root: Path, *names: str) -> Path:
    """Return the first of the folders that exists below `root`, or else the last."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[-1])


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _next(stem: str) -> str:
    """Return the next frame's stem, such as `frame_0002` for `frame_0001`."""
    return re.sub(r"\d+$", lambda digits: f"{int(digits[0]) + 1:0{len(digits[0])}d}", stem)


def folder(root: Path, split: str) -> Iterator[FlowPair]:
    """Yield a user's own pairs.

    Split "all" is the list `pairs.txt`, or else every `.flo` below the root. Any other split is a
    list such as `train.txt`, or else the folder of its name.

    Raises:
        MidwayError: Frames of a flow are missing, or a line of a list does not have three paths.

    """
    pairs = root / ("pairs.txt" if split == "all" else f"{split}.txt")
    if pairs.is_file():
        yield from _listed(root, pairs)
        return
    base = root if split == "all" else root / split
    for flow in sorted(base.rglob("*.flo")) if base.is_dir() else ():
        source, target = _frames_of(flow, base)
        sequence = flow.parent.relative_to(base).as_posix()
        yield FlowPair(source=source, target=target, flow=str(flow), sequence=sequence)


def _listed(root: Path, pairs: Path) -> Iterator[FlowPair]:
    """Yield the pairs of a list: source, target and flow, relative to the root."""
    for number, line in enumerate(pairs.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        mark = next((mark for mark in ("\t", ",") if mark in line), None)
        parts = [part.strip() for part in line.split(mark)]
        if len(parts) != 3:
            raise MidwayError(
                f"{pairs}: line {number} has {len(parts)} paths; give source, target and flow"
            )
        source, target, flow = (str(root / part) for part in parts)
        sequence = Path(parts[2]).parent.as_posix()
        yield FlowPair(source=source, target=target, flow=flow, sequence=sequence)


def _frames_of(flow: Path, base: Path) -> tuple[str, str]:
    """Return source and target of a flow: NAME_img1 and NAME_img2, or its number and the next."""
    name = flow.stem.removesuffix("_flow")
    found = [_image(flow.parent / f"{name}_img{number}") for number in (1, 2)]
    below = flow.relative_to(base).parts
    # Beside the flow, or below images/ where it lies below flow/.
    for folder in (flow.parent, base.joinpath("images", *below[1:]).parent):
        if not all(found) and re.search(r"\d$", name):
            found = [_image(folder / stem) for stem in (name, _next(name))]
    if not all(found):
        raise MidwayError(
            f"{flow}: its two frames are missing; name them {name}_img1.png and "
            f"{name}_img2.png, or as in docs/OWN_LABELS.md"
        )
    return str(found[0]), str(found[1])


def _image(stem: Path) -> Path | None:
    """Return the image of a path without suffix, if there is one."""
    paths = (stem.with_name(stem.name + suffix) for suffix in sorted(IMAGE_SUFFIXES))
    return next((path for path in paths if path.is_file()), None)
