"""CroCo's encoder: any image size, shifts, masked tokens, layers, files in the published layout."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from midway.errors import MidwayError
from midway.models.encoders.croco import CrocoEncoder, CrocoEncoderConfig
from midway.models.weights.sources import load_encoder
from midway.nn.rope import grid_positions

CONFIG = CrocoEncoderConfig(patch_size=8, width=24, depth=3, heads=2)


def encoder(config: CrocoEncoderConfig = CONFIG) -> CrocoEncoder:
    torch.manual_seed(0)
    return CrocoEncoder(config).eval()


def test_maps_are_those_of_the_tokens_row_by_row_at_every_level() -> None:
    net, images = encoder(), torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        maps = net.maps(images, (1, -1, 2))
        x, positions = net.patch_embed(images), grid_positions((4, 6), images.device)
        assert torch.equal(
            maps[1].flatten(2).transpose(1, 2), net.run_blocks(x, positions, (3,))[0]
        )
        assert_close(net(images), maps[1].mean((2, 3)))
    assert [tuple(each.shape) for each in maps] == [(2, 24, 4, 6)] * 3
    with pytest.raises(MidwayError, match="levels 1 to 3"):
        net.maps(images, (4,))
    with pytest.raises(MidwayError, match="multiples of the patch size 8"):
        net.maps(images[:, :, :30], (1,))


def test_tokens_do_not_depend_on_their_order_but_on_their_places() -> None:
    net, images = encoder(), torch.randn(2, 3, 32, 32)
    positions, x = grid_positions((4, 4), images.device), net.patch_embed(images)
    order = torch.randperm(16)[:10]
    with torch.no_grad():
        some = net.run_blocks(x[:, order], positions[:, order], (-1,))[0]
        again = net.run_blocks(x[:, order.flip(0)], positions[:, order.flip(0)], (-1,))[0]
        moved = net.run_blocks(x[:, order], positions[:, order] + 5, (-1,))[0]
        swapped = net.run_blocks(x[:, order], positions[:, order].flip(2), (-1,))[0]
    assert_close(again.flip(1), some)
    # Only offsets count, and rows are not columns.
    assert_close(moved, some, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(swapped, some, atol=1e-3)


def test_layers_count_from_the_embedding_and_drop_path_rises() -> None:
    net = encoder()
    layers = {name: net.layer_of(name) for name, _ in net.named_parameters()}
    assert layers["patch_embed.proj.weight"] == 0
    assert layers["enc_blocks.2.attn.qkv.weight"] == 3
    assert layers["enc_norm.weight"] == 4
    net.set_drop_path(0.2)
    assert [block.drop_path.p for block in net.enc_blocks] == pytest.approx([0, 0.1, 0.2])
    out = net.train().maps(torch.randn(8, 3, 16, 16), (-1,))[0]
    assert out.isfinite().all()


def published(config: CrocoEncoderConfig) -> dict[str, Tensor]:
    """Tensors under all names that a published file has beside the encoder's."""
    state = dict(encoder(config).state_dict())
    state |= {"mask_token": torch.ones(1, 1, 8), "prediction_head.weight": torch.ones(2, 8)}
    state |= {"decoder_embed.weight": torch.ones(8, 192), "dec_norm.weight": torch.ones(8)}
    return state | {"dec_blocks.0.cross_attn.projq.weight": torch.ones(8, 8)}


def test_a_file_in_the_published_layout_gives_the_encoder(tmp_path: Path, caplog) -> None:
    config = CrocoEncoderConfig(width=192, depth=2, heads=3)
    path = tmp_path / "croco.pth"
    torch.save({"model": published(config), "croco_kwargs": {"enc_depth": 2, "pos": "x"}}, path)
    found = load_encoder(str(path))
    assert isinstance(found, CrocoEncoder)
    assert found.config == config
    images = torch.randn(1, 3, 32, 48)
    assert torch.equal(found.maps(images, (-1,))[0], encoder(config).maps(images, (-1,))[0])
    assert "CroCo v2" in caplog.text
    for part in ("3 of decoder", "1 of head (prediction_head.weight)", "1 of mask token"):
        assert part in caplog.text


@pytest.mark.parametrize("name", ["enc_pos_embed", "enc_blocks.0.attn.other"])
def test_a_tensor_that_the_encoder_does_not_have_is_refused_by_name(tmp_path: Path, name) -> None:
    # The positions of version 1 are sines and cosines, and not rotary.
    config = CrocoEncoderConfig(width=192, depth=1, heads=3)
    path = tmp_path / "croco.pth"
    torch.save({"model": published(config) | {name: torch.zeros(196, 192)}}, path)
    with pytest.raises(MidwayError, match=name):
        load_encoder(str(path))
