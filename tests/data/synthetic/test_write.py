"""Synthetic worlds on disk: videos, flow and segmentation datasets match the rendered frames."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from midway.data.flow.files import read_flo
from midway.data.synthetic.world import World, WorldConfig
from midway.data.synthetic.write import write_flow_dataset, write_segmentation_dataset, write_videos
from midway.errors import MidwayError

CONFIG = WorldConfig()
SMALL = WorldConfig(height=48, width=64, num_frames=12, fps=5.0, num_objects=3)


def brightness_error(decoded, frame):
    """Mean grey levels between a decoded frame and a drawn one; 4:2:0 keeps brightness only."""
    difference = decoded.to_ndarray(format="rgb24").astype(float) - frame.image
    return np.abs(difference @ [0.299, 0.587, 0.114]).mean()


def test_videos_decode_to_the_frames_of_the_world_at_their_times(tmp_path: Path):
    config = replace(CONFIG, num_frames=25, fps=10.0)
    paths = write_videos(tmp_path / "videos", config, seeds=[0, 12])
    assert [path.name for path in paths] == ["world_0000.mp4", "world_0012.mp4"]
    for path, seed in zip(paths, (0, 12), strict=True):
        world = World(config, seed)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == 10
            decoded = list(container.decode(stream))
        assert len(decoded) == 25
        assert all(decoded[i].key_frame for i in (0, 10, 20))
        for i, frame in enumerate(decoded):
            assert frame.time == pytest.approx(i / 10)
            assert brightness_error(frame, world.frame(i / 10)) < 3
        assert brightness_error(decoded[10], world.frame(0.5)) > 12


def test_an_odd_size_is_refused_for_video(tmp_path: Path):
    with pytest.raises(MidwayError, match="odd video size: 97 x 128"):
        write_videos(tmp_path, replace(CONFIG, height=97), seeds=[0])


def test_a_flow_dataset_holds_the_worlds_frames_flow_and_occlusion(tmp_path: Path):
    write_flow_dataset(tmp_path, SMALL, seeds=[3])
    world, training = World(SMALL, 3), tmp_path / "training"
    names = [f"frame_{n:04d}" for n in range(1, 13)]
    images = sorted((training / "clean/world_0003").iterdir())
    flows = sorted((training / "flow/world_0003").iterdir())
    occlusions = sorted((training / "occlusions/world_0003").iterdir())
    assert [path.name for path in images] == [f"{name}.png" for name in names]
    assert [path.name for path in flows] == [f"{name}.flo" for name in names[:-1]]
    assert [path.name for path in occlusions] == [f"{name}.png" for name in names[:-1]]
    for i, image in enumerate(images):
        np.testing.assert_array_equal(np.asarray(Image.open(image)), world.frame(i / 5).image)
    for i in range(11):
        motion = world.flow(i / 5, (i + 1) / 5)
        np.testing.assert_array_equal(read_flo(flows[i]), motion.flow)
        occluded = np.asarray(Image.open(occlusions[i]))
        np.testing.assert_array_equal(occluded, np.where(motion.occluded, 255, 0))


def test_a_segmentation_dataset_pairs_images_with_class_ids(tmp_path: Path):
    config = replace(SMALL, num_frames=2, fps=1.0)
    write_segmentation_dataset(tmp_path, config, train_seeds=[0, 1], val_seeds=[9])
    for split, seeds in (("train", (0, 1)), ("val", (9,))):
        expected = [(seed, second) for seed in seeds for second in (0, 1)]
        images = sorted((tmp_path / "images" / split).iterdir())
        labels = sorted((tmp_path / "labels" / split).iterdir())
        assert [path.name for path in images] == [path.name for path in labels]
        for (seed, second), image, label in zip(expected, images, labels, strict=True):
            frame = World(config, seed).frame(float(second))
            np.testing.assert_array_equal(np.asarray(Image.open(image)), frame.image)
            with Image.open(label) as file:
                assert file.mode == "L"
                np.testing.assert_array_equal(np.asarray(file), frame.classes)
