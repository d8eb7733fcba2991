"""VideoMAE's encoder: single images, positions, files in the published layout."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from midway.errors import MidwayError
from midway.models.encoders.videomae import VideoMaeEncoder, VideoMaeEncoderConfig
from midway.models.weights.save import save
from midway.models.weights.sources import EncoderSource, load_encoder, open_encoder
from midway.nn.positions import line_sinusoids

CONFIG = VideoMaeEncoderConfig(
    image_size=(32, 32), num_frames=6, patch_size=8, width=24, depth=3, heads=2
)


def encoder(config: VideoMaeEncoderConfig = CONFIG) -> VideoMaeEncoder:
    """An encoder whose biases are not zero."""
    torch.manual_seed(0)
    net = VideoMaeEncoder(config).eval()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return net


def test_a_slice_is_the_first_of_a_clip_of_equal_frames() -> None:
    net, images = encoder(), torch.randn(2, 3, 32, 32)
    clip = images[:, None].expand(-1, 6, -1, -1, -1)
    with torch.no_grad():
        tokens = net.embed(clip)
        assert tokens.shape == (2, 3 * 16, 24)
        wanted = net.run_blocks(tokens[:, :16], (-1, 1))
        found = net.maps(images, (-1, 1))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one.flatten(2).transpose(1, 2), other, atol=1e-5, rtol=1e-4)


def test_a_static_clip_is_averaged_over_its_slices() -> None:
    net, images = encoder(replace(CONFIG, still="clip")), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = net.run_blocks(net.embed(images[:, None].expand(-1, 6, -1, -1, -1)), (2,))[0]
        found = net.maps(images, (2,))[0]
        assert net(images).shape == (2, 24)
    wanted = tokens.unflatten(1, (3, 16)).mean(1)
    assert_close(found.flatten(2).transpose(1, 2), wanted, atol=1e-5, rtol=1e-4)


def test_positions_run_through_all_slices_and_are_resampled_in_space() -> None:
    net = encoder()
    assert "table" not in net.state_dict()
    assert torch.equal(net.positions((4, 4)), line_sinusoids(48, 24))
    other = net.positions((8, 8))
    assert other.shape == (1, 3 * 64, 24)
    # The slowest waves hardly change from a patch to the next: twice the resolution keeps them.
    for number in range(3):
        small = net.positions((4, 4))[0].unflatten(0, (3, 4, 4))[number, ..., -2:]
        large = other[0].unflatten(0, (3, 8, 8))[number, ..., -2:]
        assert_close(large[2::2, 2::2][:2, :2], small[1:3, 1:3], atol=0.01, rtol=0)
    assert net.maps(torch.randn(1, 3, 64, 48), (-1,))[0].shape == (1, 24, 8, 6)


def test_drop_path_rises_and_blocks_are_layers() -> None:
    net = encoder()
    net.set_drop_path(0.2)
    assert [block.drop_path.p for block in net.blocks] == pytest.approx([0, 0.1, 0.2])
    assert net.layer_of("patch_embed.proj.weight") == 0
    assert net.layer_of("blocks.2.attn.q_bias") == 3


def test_a_file_in_the_published_layout_gives_the_encoder(tmp_path: Path, caplog) -> None:
    config = VideoMaeEncoderConfig(width=192, depth=2, heads=3)
    net = encoder(config)
    state = {f"encoder.{name}": tensor for name, tensor in net.state_dict().items()}
    state |= {"mask_token": torch.ones(1, 1, 8), "encoder_to_decoder.weight": torch.ones(8, 192)}
    state |= {"decoder.blocks.0.attn.q_bias": torch.ones(8), "decoder.head.bias": torch.ones(8)}
    path = tmp_path / "videomae.pth"
    content = {"model": state, "optimizer": {"state": {}}, "epoch": 1, "scaler": {}, "args": {}}
    torch.save(content, path)
    found = load_encoder(str(path))
    assert isinstance(found, VideoMaeEncoder)
    assert found.config == config
    images = torch.randn(1, 3, 224, 224)
    assert torch.equal(found.maps(images, (-1,))[0], net.maps(images, (-1,))[0])
    assert "VideoMAE" in caplog.text
    assert "3 of decoder" in caplog.text
    assert "1 of mask token" in caplog.text
    torch.save(content | {"model": state | {"encoder.blocks.0.attn.k_bias": torch.ones(192)}}, path)
    with pytest.raises(MidwayError, match=r"blocks\.0\.attn\.k_bias"):
        load_encoder(str(path))
    del state["encoder.norm.bias"]
    torch.save({"model": state}, path)
    with pytest.raises(MidwayError, match=r"norm\.bias"):
        load_encoder(str(path))


def test_an_evaluation_chooses_the_form_of_single_images(tmp_path: Path) -> None:
    net, images = encoder(), torch.randn(1, 3, 32, 32)
    path = str(tmp_path / "net.safetensors")
    save(net, Path(path))
    one, clip = (
        open_encoder(EncoderSource(network=path, features=features)).encoder
        for features in ("encoder", "static_clip")
    )
    with torch.no_grad():
        assert torch.equal(one.maps(images, (-1,))[0], net.maps(images, (-1,))[0])
        net.config = replace(CONFIG, still="clip")
        assert torch.equal(clip.maps(images, (-1,))[0], net.maps(images, (-1,))[0])
    assert not torch.equal(clip.maps(images, (-1,))[0], one.maps(images, (-1,))[0])
    with pytest.raises(MidwayError, match="a vit does not see clips; take --features encoder"):
        open_encoder(EncoderSource(network="random", features="static_clip"))


@pytest.mark.parametrize("names", ["today", "hub"])
def test_a_file_of_transformers_gives_its_features_of_a_clip(tmp_path: Path, names: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"image_size": 224, "hidden_size": 192, "num_hidden_layers": 2, "num_frames": 4}
    small = {"num_attention_heads": 3, "intermediate_size": 768, "decoder_num_hidden_layers": 1}
    theirs = transformers.VideoMAEForPreTraining(
        transformers.VideoMAEConfig(**sizes, **small, layer_norm_eps=1e-6, use_mean_pooling=False)
    ).eval()
    state = {
        name: tensor + 0.1 * torch.randn(tensor.shape)
        for name, tensor in theirs.state_dict().items()
    }
    theirs.load_state_dict(state)
    if names == "hub":  # the biases in files of transformers 4
        state = {
            name.replace("attention.query.bias", "attention.q_bias").replace(
                "attention.value.bias", "attention.v_bias"
            ): tensor
            for name, tensor in state.items()
        }
    torch.save(state, tmp_path / "videomae.pth")
    found = load_encoder(str(tmp_path / "videomae.pth"))
    assert isinstance(found, VideoMaeEncoder)
    assert found.config == VideoMaeEncoderConfig(width=192, depth=2, heads=3)
    # The positions of 4 frames are the first of those of 16.
    clip = torch.randn(1, 4, 3, 224, 224)
    with torch.no_grad():
        tokens = found.patch_embed(clip) + found.table[:, : 2 * 196]
        ours = found.run_blocks(tokens, (-1,))[0]
        assert_close(ours, theirs.videomae(clip)[0], atol=1e-4, rtol=1e-4)
