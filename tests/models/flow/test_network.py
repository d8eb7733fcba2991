"""The flow network: what starts from where, what is trained, what the head reads, files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midway.errors import MidwayError
from midway.models.dynamics import Dynamics
from midway.models.encoders.timm import TimmEncoder
from midway.models.encoders.vit import VisionTransformer
from midway.models.flow.network import (
    BEST,
    DptConfig,
    FlowNetwork,
    FlowNetworkConfig,
    load_flow_network,
    save_flow_network,
)
from midway.models.midway import MidwayNetwork
from midway.models.weights.save import save
from tests.models.encoders.fake_timm import install_timm
from tests.models.networks import DYNAMICS, ENCODER, random_network, tiny

DPT = DptConfig(widths=(4, 6, 8, 10), fused_width=12, last_width=3)
CONFIG = FlowNetworkConfig(encoder=ENCODER, dynamics=DYNAMICS, dpt=DPT)


def frames(height=32, width=32):
    torch.manual_seed(1)
    return torch.randn(2, 2, 3, height, width).unbind()


def flow_network():
    torch.manual_seed(0)
    return FlowNetwork(CONFIG)


def test_a_pretrained_network_gives_encoder_and_dynamics():
    pretrained = random_network()
    network = FlowNetwork.from_pretrained(pretrained, DPT, (32, 32))
    for part in ("encoder", "dynamics"):
        mine, theirs = (getattr(n, part).state_dict() for n in (network, pretrained))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_teachers_encoder_and_fresh_dynamics_are_choices():
    pretrained = random_network()
    network = FlowNetwork.from_pretrained(
        pretrained, DPT, (32, 32), encoder="teacher", fresh_dynamics=True
    )
    assert torch.equal(network.encoder.pos_embed, pretrained.teacher.encoder.pos_embed)
    assert not torch.equal(network.encoder.pos_embed, pretrained.encoder.pos_embed)
    weight = "midway_path.up.weight"
    mine, theirs = (n.dynamics.state_dict()[weight] for n in (network, pretrained))
    assert not torch.equal(mine, theirs)
    assert mine.std() < 0.05  # as drawn, not as the random network


def test_a_network_without_latent_dynamics_gets_a_fresh_midway_path():
    """Row 1 of table 3 is evaluated for flow like the others."""
    pretrained = random_network(latent_dynamics=False)
    network = FlowNetwork.from_pretrained(pretrained, DPT, (32, 32))
    mine, theirs = (n.dynamics.state_dict() for n in (network, pretrained))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert {name.split(".")[0] for name in mine.keys() - theirs.keys()} == {"down", "midway_path"}
    assert network(*frames()).shape == (2, 3, 32, 32)


def test_a_bare_encoder_gets_fresh_dynamics_and_no_drop_path():
    encoder = VisionTransformer(replace(ENCODER, drop_path=0.5))
    network = FlowNetwork.from_encoder(encoder, DYNAMICS, DPT, (32, 32))
    assert network.config == replace(CONFIG, crop=(32, 32))
    mine, theirs = network.encoder.state_dict(), encoder.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    network.encoder.pos_embed.data.zero_()
    assert encoder.pos_embed.any()


def test_sizes_that_do_not_go_together_are_told():
    with pytest.raises(MidwayError, match=r"levels \(1, 2, 3\) must lie below .* top level 3"):
        replace(CONFIG, encoder=replace(ENCODER, depth=3))
    with pytest.raises(MidwayError, match=r"backward_heads 5 does not divide .* width 24"):
        replace(CONFIG, dynamics=replace(DYNAMICS, backward_heads=5))
    with pytest.raises(MidwayError, match=r"two patches of 8; give one like --data.crop 32 48$"):
        replace(CONFIG, crop=(40, 50))


def test_a_model_of_timm_is_an_encoder_and_comes_back_from_a_file(monkeypatch, tmp_path: Path):
    made = install_timm(monkeypatch)
    encoder = TimmEncoder("vit_tiny", pretrained=True)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    network = FlowNetwork.from_encoder(encoder, DYNAMICS, DPT, (32, 32)).eval()
    assert network.config == replace(CONFIG, timm="vit_tiny", crop=(32, 32))
    # The same weights in an encoder of ours, given the model's own colours.
    ours = FlowNetwork.from_encoder(encoder.model.inner[0], DYNAMICS, DPT, (32, 32)).eval()
    ours.dynamics.load_state_dict(network.dynamics.state_dict())
    ours.head.load_state_dict(network.head.state_dict())
    own = [encoder.recolour(frame) for frame in frames()]
    torch.testing.assert_close(network(*frames()), ours(*own))
    save_flow_network(network, tmp_path / BEST)
    torch.testing.assert_close(load_flow_network(tmp_path)(*frames()), network(*frames()))
    # Published weights were asked for once, and the file needs none.
    assert [pretrained for _, pretrained, *_ in made] == [True, False, False]


def test_drop_path_is_off_in_finetuning():
    config = replace(tiny(), encoder=replace(ENCODER, drop_path=0.5))
    network = FlowNetwork.from_pretrained(MidwayNetwork(config), DPT, (32, 32)).train()
    source, target = frames()
    torch.testing.assert_close(network(source, target), network(source, target), rtol=0, atol=0)


def test_finetuning_reaches_every_parameter_and_both_frames():
    network = flow_network()
    source, target = (frame.requires_grad_() for frame in frames())
    source.retain_grad()
    target.retain_grad()
    network(source, target).square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    assert source.grad is not None
    assert source.grad.any()
    assert target.grad is not None
    assert target.grad.any()


def test_frozen_the_head_alone_is_trained_and_the_rest_stays_in_evaluation():
    network = flow_network()
    network.freeze()
    network.train()
    network(*frames()).square().mean().backward()
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert trained == {"head"}
    assert network.head.training
    assert not network.encoder.training
    assert not network.dynamics.training


def test_the_head_reads_the_four_inputs_of_the_paper_in_its_order():
    network = flow_network().eval()
    seen = []
    network.head.forward = lambda maps, size: seen.extend(maps) or torch.zeros(2, 3, *size)
    source, target = frames()
    network(source, target)
    # The same network taken apart, its target side computed by a second copy of the layers.
    features = [network.encoder.levels(frame, (1, 2, 3, 4)) for frame in (source, target)]
    outputs = network.dynamics(*features, teacher=network.dynamics, grid=(4, 4))
    midway = outputs[3].midway_tokens
    expected = (
        features[0][3][:, 1:],
        midway[:, 5 + 17 + 1 :],  # 5 latents, 17 tokens of the source, the target's class token
        outputs[3].prediction[:, 1:],
        outputs[1].prediction[:, 1:],
    )
    for found, tokens in zip(seen, expected, strict=True):
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens)


def test_other_inputs_are_a_choice_and_need_what_they_read():
    inputs = ("source", "forward_bottom", "forward_top", "forward_bottom")
    without_latents = replace(DYNAMICS, latent_dynamics=False)
    config = replace(CONFIG, dynamics=without_latents, dpt=replace(DPT, inputs=inputs))
    assert FlowNetwork(config)(*frames()).shape == (2, 3, 32, 32)
    with pytest.raises(MidwayError, match="no midway_top without latent dynamics"):
        replace(CONFIG, dynamics=without_latents)


def test_another_size_resamples_the_positions_of_encoder_and_dynamics():
    network = flow_network().eval()
    tables = []
    original = Dynamics.forward

    def spy(self, source, target, teacher, grid):
        tables.append(self.midway_path.positions(grid)[0].shape)
        return original(self, source, target, teacher, grid)

    network.dynamics.forward = spy.__get__(network.dynamics)
    assert network(*frames(48, 64)).shape == (2, 3, 48, 64)
    assert tables == [(1, 1 + 6 * 8, 12)]
    with pytest.raises(MidwayError, match="both must be even"):
        network(*frames(40, 64))


def test_the_published_size_takes_crops_of_320_by_384():
    config = FlowNetworkConfig()
    with torch.device("meta"):
        network = FlowNetwork(config)
        assert network(*torch.empty(2, 1, 3, 320, 384)).shape == (1, 3, 320, 384)


def test_a_file_gives_the_same_network_back(tmp_path: Path):
    network = flow_network().eval()
    save_flow_network(network, tmp_path / BEST)
    for path in (tmp_path, tmp_path / BEST):
        again = load_flow_network(path)
        assert again.config == CONFIG
        torch.testing.assert_close(again(*frames()), network(*frames()), rtol=0, atol=0)


def test_files_that_hold_no_flow_network_are_refused(tmp_path: Path):
    with pytest.raises(MidwayError, match="no such file"):
        load_flow_network(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(MidwayError, match="not a readable safetensors"):
        load_flow_network(tmp_path / "a.safetensors")
    save(random_network(), tmp_path / "b.safetensors")
    with pytest.raises(MidwayError, match="contains no flow network"):
        load_flow_network(tmp_path / "b.safetensors")
