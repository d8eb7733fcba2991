"""Networks and encoders by name, from files and nowhere; what cannot serve is told."""

import hashlib
from pathlib import Path

import pytest
import torch

from midway.errors import MidwayError
from midway.models.encoders.vit import VisionTransformer
from midway.models.weights.save import save
from midway.models.weights.sources import (
    EncoderSource,
    NetworkSource,
    open_encoder,
    open_network,
    weights_hash,
)
from tests.models.networks import ENCODER, random_network, same_weights

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return random_network()


@pytest.fixture
def saved(network, tmp_path):
    path = tmp_path / "net.safetensors"
    save(network, path)
    return path


def maps_of(source, levels=(4,)):
    with torch.no_grad():
        return open_encoder(source).encoder.maps(IMAGES, levels)


def test_a_midway_file_gives_teacher_and_student_and_both_kinds_of_features(network, saved):
    run = str(saved)
    (teacher,) = maps_of(EncoderSource(network=run))
    torch.testing.assert_close(teacher, network.teacher.encoder.maps(IMAGES, (4,))[0])
    (student,) = maps_of(EncoderSource(network=run, weights="student"))
    torch.testing.assert_close(student, network.encoder.maps(IMAGES, (4,))[0])
    (backward,) = maps_of(EncoderSource(network=run, weights="student", features="backward"), (1,))
    assert not torch.allclose(backward, network.encoder.maps(IMAGES, (1,))[0])


def test_what_was_opened_is_told_by_hashes(saved):
    opened = open_encoder(EncoderSource(network=str(saved)))
    assert opened.file == str(saved)
    assert opened.file_sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert not opened.encoder.training
    pinned = EncoderSource(network=str(saved), weights_sha256=opened.weights_sha256)
    assert open_encoder(pinned).weights_sha256 == opened.weights_sha256
    torch.manual_seed(1)
    save(random_network(), saved)
    with pytest.raises(MidwayError, match="its weights are not those this readout began with"):
        open_encoder(pinned)


def test_a_name_that_no_encoder_has_is_refused_for_both_kinds_of_features(saved):
    for features in ("encoder", "backward"):
        source = EncoderSource(network=str(saved), weights="techer", features=features)
        with pytest.raises(MidwayError, match="no encoder 'techer'; there are student, teacher"):
            open_encoder(source)


def test_untrained_networks_have_the_sizes_of_the_file_and_weights_of_the_seed(saved):
    source = EncoderSource(network=str(saved), untrained=True)
    torch.manual_seed(3)
    one = open_encoder(source)
    torch.manual_seed(3)
    two = open_encoder(source)
    assert one.weights_sha256 == two.weights_sha256 != open_encoder(source).weights_sha256
    assert one.weights_sha256 != open_encoder(EncoderSource(network=str(saved))).weights_sha256
    assert one.encoder.width == 24
    assert one.file is None


def test_a_random_encoder_is_a_vit_s():
    torch.manual_seed(0)
    encoder = open_encoder(EncoderSource(network="random")).encoder
    assert (encoder.width, encoder.depth, encoder.stride) == (384, 12, 16)


def test_no_network_is_told(tmp_path):
    with pytest.raises(MidwayError, match="give a run folder or checkpoint by --network RUN"):
        open_encoder(EncoderSource())
    with pytest.raises(MidwayError, match="no such file or folder"):
        open_encoder(EncoderSource(network=str(tmp_path / "nothing.pth")))


def test_a_file_gives_its_network_or_one_of_its_sizes_with_fresh_weights(tmp_path):
    saved = random_network()
    save(saved, tmp_path / "net.safetensors")
    source = NetworkSource(network=str(tmp_path / "net.safetensors"), accelerator="cpu")
    opened = open_network(source)
    assert same_weights(opened.network, saved)
    assert not opened.network.training
    assert opened.file == source.network
    assert opened.file_sha256 == hashlib.sha256(Path(opened.file).read_bytes()).hexdigest()
    fresh = [
        open_network(NetworkSource(network=source.network, untrained=True, weights_seed=seed))
        for seed in (0, 0, 1)
    ]
    assert fresh[0].network.config == saved.config
    assert fresh[0].weights_sha256 == fresh[1].weights_sha256
    assert len({each.weights_sha256 for each in (opened, *fresh)}) == 3
    assert fresh[0].file is None


def test_fresh_weights_do_not_depend_on_what_was_drawn_before(tmp_path):
    save(random_network(), tmp_path / "net.safetensors")
    source = NetworkSource(network=str(tmp_path / "net.safetensors"), untrained=True)
    first = open_network(source).network
    torch.rand(3)
    assert same_weights(open_network(source).network, first)


def test_no_network_and_no_such_file_are_one_line(tmp_path):
    with pytest.raises(MidwayError, match="no network: give a run folder"):
        open_network(NetworkSource())
    with pytest.raises(MidwayError, match="no such file or folder"):
        open_network(NetworkSource(network=str(tmp_path / "none.safetensors")))


def test_the_hash_tells_any_change_of_a_weight_and_nothing_else():
    one, two = VisionTransformer(ENCODER), VisionTransformer(ENCODER)
    two.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(two)
    with torch.no_grad():
        two.norm.bias[3] += 1e-6
    assert weights_hash(one) != weights_hash(two)


def test_the_hash_of_a_vit_is_that_of_version_0_1_with_its_names_below_vit():
    class Wrapper(torch.nn.Module):
        def __init__(self, vit):
            super().__init__()
            self.vit = vit

    vit = VisionTransformer(ENCODER)
    assert weights_hash(vit) == weights_hash(Wrapper(vit))


def test_a_random_encoder_of_another_kind_has_its_default_sizes():
    encoder = open_encoder(EncoderSource(network="random:resnet")).encoder
    assert (encoder.kind, encoder.width, encoder.depth) == ("resnet", 2048, 4)
    with pytest.raises(MidwayError, match="random:vgg: encoders: no 'vgg'; there are backward"):
        open_encoder(EncoderSource(network="random:vgg"))


def test_an_encoder_alone_does_not_serve_where_dynamics_are_needed():
    for name in ("timm:vit_tiny", "random:resnet"):
        with pytest.raises(MidwayError, match="needs the dynamics of a Midway network"):
            open_network(NetworkSource(network=name))
