"""Flow datasets: search for pairs in each dataset's layout."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True)
class FlowSet:
    """Layout and splits of a dataset."""

    find: Callable[[Path, str], Iterator[FlowPair]]
    """Function that finds the pairs of a split below a root."""
    layout: str
    """Description of the layout, for errors."""
    splits: tuple[str, ...] = ("all",)
    renderings: tuple[str, ...] = ()
    """Renderings, which also select part of a split, as in `all-final`."""


def list_pairs(dataset: str, root: Path, split: str = "all") -> list[FlowPair]:
    """List the pairs of a dataset below `root`, in a fixed order.

    Args:
        dataset: A key of `FLOW_SETS`.
        root: Folder of the unpacked dataset.
        split: Name of a split; suffix `-clean` or `-final` selects one rendering.

    Raises:
        MidwayError: The dataset or split is unknown, or there are no pairs in its layout.
    """
    if dataset not in FLOW_SETS:
        raise MidwayError(f"no flow dataset '{dataset}'; there are {', '.join(FLOW_SETS)}")
    known = FLOW_SETS[dataset]
    part, _, rendering = split.partition("-")
    if part not in known.splits or (rendering and rendering not in known.renderings):
        renderings = "".join(f", each also with -{name}" for name in known.renderings)
        raise MidwayError(
            f"{dataset}: no split '{split}'; it has {', '.join(known.splits)}{renderings}"
        )
    if not root.is_dir():
        raise MidwayError(f"{dataset}: no folder {root}; check the root of the data")
    pairs = [p for p in known.find(root, part) if rendering in ("", p.rendering)]
    if not pairs:
        found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise MidwayError(
            f"{dataset}: no pair of split '{split}' below {root}; expected {known.layout}, "
            f"found {found}"
        )
    # A missing rendering would silently halve the dataset.
    missing = {*known.renderings} - {pair.rendering for pair in pairs}
    if missing and not rendering:
        raise MidwayError(
            f"{dataset}: no {' and no '.join(missing)} pair of split '{split}' below {root}; fetch "
            f"the rest, or ask for split '{part}-{pairs[0].rendering}'"
        )
    return pairs


def _sintel(root: Path, split: str) -> Iterator[FlowPair]:
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


def _chairs(root: Path, split: str) -> Iterator[FlowPair]:
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


def _things(root: Path, split: str) -> Iterator[FlowPair]:
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
        frames = root / f"frames_{rendering}pass"
        for name, source, target, flow in found if frames.is_dir() else ():
            yield FlowPair(
                source=f"{frames}/{name}/left/{source:04d}.png",
                target=f"{frames}/{name}/left/{target:04d}.png",
                flow=flow,
                sequence=name,
                rendering=rendering,
            )


def _tartanair(root: Path, split: str) -> Iterator[FlowPair]:
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


def _kitti(root: Path, split: str) -> Iterator[FlowPair]:
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


def _spring(root: Path, split: str) -> Iterator[FlowPair]:
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


def _middlebury(root: Path, split: str) -> Iterator[FlowPair]:
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


_SINTEL_LAYOUT = "[training/]{clean,final}/SCENE/frame_0001.png and flow/SCENE/frame_0001.flo"
FLOW_SETS: dict[str, FlowSet] = {
    "sintel": FlowSet(
        find=_sintel,
        layout=_SINTEL_LAYOUT,
        splits=("all", "subtrain", "subval"),
        renderings=("clean", "final"),
    ),
    "things": FlowSet(
        find=_things,
        layout="frames_{clean,final}pass/TRAIN/A/0000/left/0006.png and optical_flow/TRAIN/A/0000/"
        "into_{future,past}/left/*.pfm",
        splits=("train", "test", "test1024"),
        renderings=("clean", "final"),
    ),
    "chairs": FlowSet(
        find=_chairs,
        layout="[data/]00001_{img1,img2}.ppm and 00001_flow.flo",
        splits=("all", "train", "val"),
    ),
    "tartanair": FlowSet(
        find=_tartanair,
        layout="ENVIRONMENT/{Easy,Hard}/P000/{image_left/000000_left.png,flow/*_flow.npy}",
    ),
    "kitti": FlowSet(
        find=_kitti,
        layout="[training/]{image_2,colored_0}/000000_{10,11}.png and flow_occ/000000_10.png",
        splits=("all", "subtrain", "subval"),
    ),
    "spring": FlowSet(
        find=_spring,
        layout="[train/]0001/{frame_left,frame_right,flow_{FW,BW}_{left,right}}/*",
        splits=("all", "subtrain", "subval"),
    ),
    "middlebury": FlowSet(find=_middlebury, layout="SCENE/{frame10.png,frame11.png,flow10.flo}"),
    "synthetic": FlowSet(find=_sintel, layout=_SINTEL_LAYOUT),
}
