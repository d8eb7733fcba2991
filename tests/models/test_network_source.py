"""Networks of evaluations."""

import pytest
import torch

from midway.errors import MidwayError
from midway.models.network_source import NetworkSource, open_network
from midway.models.weights import save

from .networks import random_network, same_weights


def test_a_file_gives_its_network_or_one_of_its_sizes_with_fresh_weights(tmp_path):
    saved = random_network()
    save(saved, tmp_path / "net.safetensors")
    source = NetworkSource(run=str(tmp_path / "net.safetensors"), accelerator="cpu")
    opened = open_network(source)
    assert same_weights(opened.network, saved)
    assert not opened.network.training
    fresh = [
        open_network(NetworkSource(run=source.run, untrained=True, weights_seed=seed))
        for seed in (0, 0, 1)
    ]
    assert fresh[0].network.config == saved.config
    assert fresh[0].weights_sha256 == fresh[1].weights_sha256
    assert len({each.weights_sha256 for each in (opened, *fresh)}) == 3


def test_fresh_weights_do_not_depend_on_what_was_drawn_before(tmp_path):
    save(random_network(), tmp_path / "net.safetensors")
    source = NetworkSource(run=str(tmp_path / "net.safetensors"), untrained=True)
    first = open_network(source).network
    torch.rand(3)
    assert same_weights(open_network(source).network, first)


def test_no_network_and_no_such_file_are_one_line(tmp_path):
    with pytest.raises(MidwayError, match="no network: give a run folder"):
        open_network(NetworkSource())
    with pytest.raises(MidwayError, match="no such file or folder"):
        open_network(NetworkSource(run=str(tmp_path / "none.safetensors")))
