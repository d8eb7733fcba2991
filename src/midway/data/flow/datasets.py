"""Flow datasets: splits, layouts and the pairs of a split."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from midway.data.flow import layouts
from midway.data.flow.pairs import FlowPair
from midway.errors import MidwayError


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


_SINTEL_LAYOUT = "[training/]{clean,final}/SCENE/frame_0001.png and flow/SCENE/frame_0001.flo"
FLOW_SETS: dict[str, FlowSet] = {
    "sintel": FlowSet(
        find=layouts.sintel,
        layout=_SINTEL_LAYOUT,
        splits=("all", "subtrain", "subval"),
        renderings=("clean", "final"),
    ),
    "things": FlowSet(
        find=layouts.things,
        layout="frames_{clean,final}pass[_webp]/TRAIN/A/0000/left/0006.{png,webp} and optical_flow/"
        "TRAIN/A/0000/into_{future,past}/left/*.pfm",
        splits=("train", "test", "test1024"),
        renderings=("clean", "final"),
    ),
    "chairs": FlowSet(
        find=layouts.chairs,
        layout="[data/]00001_{img1,img2}.ppm and 00001_flow.flo",
        splits=("all", "train", "val"),
    ),
    "tartanair": FlowSet(
        find=layouts.tartanair,
        layout="ENVIRONMENT/{Easy,Hard}/P000/{image_left/000000_left.png,flow/*_flow.npy}",
    ),
    "kitti": FlowSet(
        find=layouts.kitti,
        layout="[training/]{image_2,colored_0}/000000_{10,11}.png and flow_occ/000000_10.png",
        splits=("all", "subtrain", "subval"),
    ),
    "hd1k": FlowSet(
        find=layouts.hd1k,
        layout="[hd1k/]hd1k_input/image_2/000000_0010.png and hd1k_flow_gt/flow_occ/"
        "000000_0010.png",
    ),
    "vkitti2": FlowSet(
        find=layouts.vkitti2,
        layout="Scene01/clone/frames/{rgb,forwardFlow,backwardFlow}/Camera_0/*_00000.{jpg,png}",
    ),
    "spring": FlowSet(
        find=layouts.spring,
        layout="[train/]0001/{frame_left,frame_right,flow_{FW,BW}_{left,right}}/*",
        splits=("all", "subtrain", "subval"),
    ),
    "middlebury": FlowSet(
        find=layouts.middlebury, layout="SCENE/{frame10.png,frame11.png,flow10.flo}"
    ),
    "synthetic": FlowSet(find=layouts.sintel, layout=_SINTEL_LAYOUT),
    "folder": FlowSet(
        find=layouts.folder,
        layout="NAME_img1.png, NAME_img2.png and NAME_flow.flo; or images/0001.png, "
        "images/0002.png and flow/0001.flo; or a list of pairs (docs/OWN_LABELS.md)",
        splits=("all", "train", "val"),
    ),
}
