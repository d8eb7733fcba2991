"""Dummies of every flow dataset in its layout on disk: small, moving, with known flow."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from midway.data.flow.files import write_flow

SIZE = (24, 32)
SHIFT = (3.0, -2.0)
"""Where everything moves, in pixels to the right and down."""


def scene(step: float, size=SIZE):
    """RGB image of a smooth pattern that has moved `step` times by SHIFT."""
    rows, columns = np.indices(size, float)
    x, y = columns - step * SHIFT[0], rows - step * SHIFT[1]
    channels = [np.sin(x / 2) * np.cos(y / 3), np.sin((x + y) / 4), np.cos((x - 2 * y) / 5)]
    return np.rint(127.5 * (1 + np.stack(channels, -1))).astype(np.uint8)


def constant_flow(sign=1, size=SIZE):
    return np.broadcast_to(np.float32(sign) * np.float32(SHIFT), (*size, 2)).copy()


def save(path: Path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def save_flow(path: Path, flow) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_flow(path, flow)


def write_sintel(root: Path, scenes=("alley_1", "temple_2", "temple_3"), frames=3) -> None:
    for name in scenes:
        for number in range(1, frames + 1):
            for rendering in ("clean", "final"):
                path = root / "training" / rendering / name / f"frame_{number:04d}.png"
                save(path, scene(number))
            if number < frames:
                stem = f"training/{{}}/{name}/frame_{number:04d}"
                save_flow(root / f"{stem.format('flow')}.flo", constant_flow())
                mask = np.zeros(SIZE, np.uint8)
                mask[:, -3:] = 255
                save(root / f"{stem.format('occlusions')}.png", mask)


def write_things(
    root: Path,
    sequences=("TRAIN/A/0000", "TEST/B/0001"),
    frames=(6, 7, 8),
    passes="frames_{}pass",
    suffix=".png",
) -> None:
    for sequence in sequences:
        for number in frames:
            for rendering in ("clean", "final"):
                frame = f"left/{number:04d}{suffix}"
                path = root / passes.format(rendering) / sequence / frame
                rgba = Image.fromarray(scene(number)).convert("RGBA")
                path.parent.mkdir(parents=True, exist_ok=True)
                rgba.save(path, **({"lossless": True} if suffix == ".webp" else {}))
            for direction, sign in (("Future", 1), ("Past", -1)):
                name = (
                    f"into_{direction.lower()}/left/OpticalFlowInto{direction}_{number:04d}_L.pfm"
                )
                flow = constant_flow(sign)
                flow[0, 0] = np.inf
                save_flow(root / "optical_flow" / sequence / name, flow)


def write_chairs(root: Path, split="1 2 1") -> None:
    for number in range(1, 1 + len(split.split())):
        stem = f"data/{number:05d}"
        save(root / f"{stem}_img1.ppm", scene(0))
        save(root / f"{stem}_img2.ppm", scene(1))
        save_flow(root / f"{stem}_flow.flo", constant_flow())
    (root / "chairs_split.txt").write_text(split.replace(" ", "\n") + "\n")


def write_tartanair(root: Path, *, doubled: bool) -> None:
    for difficulty in ("Easy", "Hard"):
        folder = root / ("abandoned/abandoned" if doubled else "abandoned") / difficulty / "P001"
        for number in range(3):
            save(folder / f"image_left/{number:06d}_left.png", scene(number))
            if number < 2:
                name = f"flow/{number:06d}_{number + 1:06d}"
                save_flow(folder / f"{name}_flow.npy", constant_flow())
                np.save(folder / f"{name}_mask.npy", np.zeros(SIZE, np.uint8))


def write_kitti(root: Path, count=12) -> None:
    for number in range(count):
        save(root / f"training/image_2/{number:06d}_10.png", scene(0))
        save(root / f"training/image_2/{number:06d}_11.png", scene(1))
        flow = constant_flow()
        flow[: SIZE[0] // 2] = np.inf
        save_flow(root / f"training/flow_occ/{number:06d}_10.png", flow)


def write_hd1k(root: Path, sequences=("000000", "000001"), frames=3) -> None:
    for sequence in sequences:
        for number in range(frames):
            name = f"{sequence}_{number + 9:04d}.png"
            save(root / "hd1k_input/image_2" / name, scene(number))
            save_flow(root / "hd1k_flow_gt/flow_occ" / name, constant_flow())


def write_vkitti2(root: Path, frames=3) -> None:
    for variant in ("Scene01/clone", "Scene20/fog"):
        for camera in ("Camera_0", "Camera_1"):
            folder = root / variant / "frames"
            for number in range(frames):
                save(folder / f"rgb/{camera}/rgb_{number:05d}.jpg", scene(number))
                for kind, stem, sign, edge in (
                    ("forwardFlow", "flow", 1, frames - 1),
                    ("backwardFlow", "backwardFlow", -1, 0),
                ):
                    if number != edge:
                        path = folder / f"{kind}/{camera}/{stem}_{number:05d}.png"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        write_vkitti2_png(path, constant_flow(sign))


def write_vkitti2_png(path: Path, flow) -> None:
    """16 bits, flow of -1 to 1 widths and heights as 0 to 65535, the first pixel unknown."""
    height, width = flow.shape[:2]
    values = np.full((height, width, 3), 65535, ">u2")
    values[..., :2] = np.rint((flow / (width - 1, height - 1) + 1) * 65535 / 2)
    values[0, 0] = 0
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)


def write_folder(root: Path) -> None:
    """Own pairs in each way of naming, in splits by folder."""
    for split in ("train", "val"):
        save(root / split / "named/a_img1.png", scene(0))
        save(root / split / "named/a_img2.webp", scene(1))
        save_flow(root / split / "named/a_flow.flo", constant_flow())
        for number in range(2):
            save(root / split / f"beside/frame_{number:03d}.png", scene(number))
            save(root / split / f"images/walk/{number:04d}.png", scene(number))
        save_flow(root / split / "beside/frame_000.flo", constant_flow())
        save_flow(root / split / "flow/walk/0000.flo", constant_flow())
    text = "# source, target and flow\n"
    for split in ("train", "val"):
        text += f"{split}/beside/frame_000.png {split}/beside/frame_001.png "
        text += f"{split}/beside/frame_000.flo\n"
    (root / "pairs.txt").write_text(text)


def write_spring(root: Path, scenes=("0001", "0041"), frames=3) -> None:
    for name in scenes:
        for side in ("left", "right"):
            for number in range(1, frames + 1):
                folder = root / "train" / name
                save(folder / f"frame_{side}/frame_{side}_{number:04d}.png", scene(number))
                for direction, sign, edge in (("FW", 1, frames), ("BW", -1, 1)):
                    if number != edge:
                        flow = constant_flow(sign, (2 * SIZE[0], 2 * SIZE[1]))
                        flow[-2:] = np.inf
                        stem = f"flow_{direction}_{side}"
                        save_flow(folder / f"{stem}/{stem}_{number:04d}.flo5", flow)


def write_middlebury(root: Path, *, official: bool) -> None:
    images, flows = (root / "other-data", root / "other-gt-flow") if official else (root, root)
    for name in ("Venus", "Grove2"):
        save(images / name / "frame10.png", scene(0))
        save(images / name / "frame11.png", scene(1))
        flow = constant_flow()
        flow[3, 4] = np.inf
        save_flow(flows / name / "flow10.flo", flow)
