"""Encoders come from runs, files, timm and nowhere; what cannot serve is told."""

import hashlib
import sys

import pytest
import torch
from safetensors.torch import save_file

from midway.errors import MidwayError
from midway.models.dense_encoder import VitEncoder
from midway.models.encoder_source import EncoderSource, is_bare, open_encoder
from midway.models.release import Told
from midway.models.timm_encoder import TimmEncoder
from midway.models.vit import VisionTransformer
from midway.models.weights import save

from .fake_timm import install_timm
from .networks import ENCODER, random_network

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
    (teacher,) = maps_of(EncoderSource(run=run))
    torch.testing.assert_close(teacher, VitEncoder(network.teacher.encoder).maps(IMAGES, (4,))[0])
    (student,) = maps_of(EncoderSource(run=run, weights="student"))
    torch.testing.assert_close(student, VitEncoder(network.encoder).maps(IMAGES, (4,))[0])
    (backward,) = maps_of(EncoderSource(run=run, weights="student", features="backward"), (1,))
    assert not torch.allclose(backward, VitEncoder(network.encoder).maps(IMAGES, (1,))[0])


def test_what_was_opened_is_told_by_hashes(saved):
    opened = open_encoder(EncoderSource(run=str(saved)))
    assert opened.file == str(saved)
    assert opened.file_sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert not opened.encoder.training
    pinned = EncoderSource(run=str(saved), weights_sha256=opened.weights_sha256)
    assert open_encoder(pinned).weights_sha256 == opened.weights_sha256
    torch.manual_seed(1)
    save(random_network(), saved)
    with pytest.raises(MidwayError, match="holds other weights than this readout began with"):
        open_encoder(pinned)


def test_untrained_networks_have_the_sizes_of_the_file_and_weights_of_the_seed(saved):
    source = EncoderSource(run=str(saved), untrained=True)
    torch.manual_seed(3)
    one = open_encoder(source)
    torch.manual_seed(3)
    two = open_encoder(source)
    assert one.weights_sha256 == two.weights_sha256 != open_encoder(source).weights_sha256
    assert one.weights_sha256 != open_encoder(EncoderSource(run=str(saved))).weights_sha256
    assert one.encoder.width == 24
    assert one.file is None


def test_a_file_of_an_encoder_with_timms_names_is_read_sizes_and_all(tmp_path):
    torch.manual_seed(0)
    vit = VisionTransformer(ENCODER).eval()
    path = str(tmp_path / "vit.safetensors")
    state = {name: tensor.contiguous() for name, tensor in vit.state_dict().items()}
    save_file(state | {"head.weight": torch.zeros(10, 24), "head.bias": torch.zeros(10)}, path)
    source = EncoderSource(run=path, told=Told(encoder_heads=2))
    (found,) = maps_of(source)
    torch.testing.assert_close(found, VitEncoder(vit).maps(IMAGES, (4,))[0])
    with pytest.raises(MidwayError, match="encoder alone and has no backward features"):
        open_encoder(EncoderSource(run=path, features="backward"))
    save_file(state | {"blocks.0.ls1.gamma": torch.ones(24)}, path)
    with pytest.raises(MidwayError, match=r"1 tensors are missing, unknown .*blocks.0.ls1.gamma"):
        open_encoder(source)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(MidwayError, match="no ViT with timm's names"):
        open_encoder(source)


def test_a_random_encoder_is_a_vit_s():
    torch.manual_seed(0)
    encoder = open_encoder(EncoderSource(run="random")).encoder
    assert (encoder.width, encoder.depth, encoder.patch_size) == (384, 12, 16)


def test_no_network_is_told(tmp_path):
    with pytest.raises(MidwayError, match="give a run folder or checkpoint by --run RUN"):
        open_encoder(EncoderSource())
    with pytest.raises(MidwayError, match="no such file or folder"):
        open_encoder(EncoderSource(run=str(tmp_path / "nothing.pth")))


@pytest.fixture
def fake_timm(monkeypatch):
    return install_timm(monkeypatch)


def test_a_model_of_timm_is_read_in_its_own_colours(fake_timm):
    opened = open_encoder(EncoderSource(run="timm:vit_tiny"))
    assert fake_timm == [("vit_tiny", True, 0, True)]
    encoder = opened.encoder
    assert (encoder.width, encoder.depth, encoder.patch_size) == (24, 4, 8)
    pixels = torch.rand(2, 3, 24, 40)
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def normalised(mean, std):
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    maps = encoder.maps(normalised(mean, std), (4, 2))
    own = normalised((0.5, 0.5, 0.5), (0.5, 0.4, 0.5))
    expected = VitEncoder(encoder.model.inner[0]).maps(own, (4, 2))
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)
    assert encoder.layer_of("model.blocks.2.mlp.fc1.weight") == 3
    encoder.set_drop_path(0.3)
    rates = [block.drop_path2.p for block in encoder.model.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    open_encoder(EncoderSource(run="timm:vit_tiny", untrained=True))
    assert fake_timm[-1] == ("vit_tiny", False, 0, True)


def test_a_model_of_timm_gives_a_class_token_and_its_patches(fake_timm):
    encoder = TimmEncoder("vit_tiny", pretrained=True)
    own = IMAGES * encoder.scale + encoder.shift
    expected = encoder.model.inner[0].levels(own, (4, 2))
    torch.testing.assert_close(encoder.levels(IMAGES, (4, 2)), expected)
    # Registers alone are no class token.
    encoder.model.cls_token = None
    for tokens, theirs in zip(encoder.levels(IMAGES, (4, 2)), expected, strict=True):
        torch.testing.assert_close(tokens[:, 1:], theirs[:, 1:])
        torch.testing.assert_close(tokens[:, 0], theirs[:, 1:].mean(dim=1))
    assert encoder.config == ENCODER


def test_a_model_of_timm_loses_its_pooling_but_not_the_norm_behind_it(fake_timm):
    encoder = TimmEncoder("vit_tiny_avg", pretrained=True)
    (tokens,) = encoder.levels(IMAGES, (4,))
    plain = TimmEncoder("vit_tiny", pretrained=True)
    torch.testing.assert_close(tokens, plain.levels(IMAGES, (4,))[0])
    tokens.square().sum().backward()
    names = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert not names


def test_an_encoder_alone_is_told_from_a_midway_network(saved, tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    bare = [is_bare(run) for run in ("timm:vit_tiny", "random", str(path), str(saved), "a/b")]
    assert bare == [True, True, True, False, False]


def test_timm_models_that_cannot_serve_are_told(fake_timm):
    with pytest.raises(MidwayError, match=r"timm:vit_x cannot be made: Unknown model \(vit_x\)"):
        open_encoder(EncoderSource(run="timm:vit_x"))
    with pytest.raises(MidwayError, match="no plain vision transformer"):
        open_encoder(EncoderSource(run="timm:resnet"))
    with pytest.raises(MidwayError, match="has no backward features"):
        open_encoder(EncoderSource(run="timm:vit_tiny", features="backward"))


def test_a_missing_timm_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MidwayError, match=r"needs timm .*; install it by pip install timm"):
        open_encoder(EncoderSource(run="timm:vit_small_patch16_224"))
