"""Gates and latents of a video are those of its pairs, with their times."""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from midway.analysis.dynamics_video import gate_means, write_motion_latents
from midway.analysis.pictures import gate_curves
from midway.errors import MidwayError
from midway.nn.images import normalise
from tests.models.networks import random_network

SECONDS = [0.0, 0.5, 1.25, 1.5]


def noise(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 32, 40), generator=generator, dtype=torch.uint8)


def hooked_gates(network, frames) -> dict[int, list[list[float]]]:
    """Means of what each gate module gives, pair after pair."""
    found = {level: [] for level in network.config.dynamics.levels}
    for level, of_level in found.items():
        for gate in network.dynamics.forward_models[str(level)].gates:
            gate.register_forward_hook(lambda *_, to=of_level: to.append(float(_[2].mean())))
    images = normalise(frames.float(), white=255)
    with torch.no_grad():
        for source, target in zip(images[:-1].split(1), images[1:].split(1), strict=True):
            network(source, target)
    return found


def test_mean_gates_are_those_that_each_pair_used():
    torch.manual_seed(0)
    network, frames = random_network(), noise()
    means = gate_means(network, frames)
    hooked = hooked_gates(network, frames)
    assert list(means) == [1, 2, 3]
    for level, found in means.items():
        assert found.shape == (3, 2)  # pairs; of the three blocks the first has no gate
        torch.testing.assert_close(found.flatten(), torch.tensor(hooked[level]))
    figure = gate_curves(SECONDS[:-1], means)
    lines = figure.axes[2].get_lines()
    assert [str(line.get_label()) for line in lines] == ["block 2", "block 3"]
    np.testing.assert_allclose(lines[1].get_ydata(), means[3][:, 1])


def test_motion_latents_come_back_from_the_file_with_their_times(tmp_path: Path):
    torch.manual_seed(0)
    network, frames, path = random_network(), noise(), tmp_path / "latents.parquet"
    assert write_motion_latents(network, frames, SECONDS, path) == 3 * 3 * 5
    table = pq.read_table(path)
    images = normalise(frames.float(), white=255)
    place = 0
    for number in range(3):
        with torch.no_grad():
            levels = network(images[number : number + 1], images[number + 1 : number + 2]).levels
        for level in (1, 2, 3):
            rows = table.slice(place, 5)
            assert set(rows["source_seconds"].to_pylist()) == {SECONDS[number]}
            assert set(rows["target_seconds"].to_pylist()) == {SECONDS[number + 1]}
            assert set(rows["level"].to_pylist()) == {level}
            assert rows["latent"].to_pylist() == [0, 1, 2, 3, 4]
            values = torch.tensor(rows["values"].to_pylist())
            torch.testing.assert_close(values, levels[level].motion_latents[0])
            place += 5


def test_what_is_missing_is_told_in_one_line(tmp_path: Path, monkeypatch):
    path = tmp_path / "latents.parquet"
    with pytest.raises(MidwayError, match="has no gates; give one that was trained with them"):
        gate_means(random_network(gates=False), noise())
    with pytest.raises(MidwayError, match="a video of 1 frame has no motion"):
        gate_means(random_network(), noise(1))
    with pytest.raises(MidwayError, match="has no motion latents"):
        write_motion_latents(random_network(latent_dynamics=False), noise(), SECONDS, path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MidwayError, match=r"Parquet needs pyarrow; run `pip install 'midway-net"):
        write_motion_latents(random_network(), noise(), SECONDS, path)
    assert not list(tmp_path.iterdir())
