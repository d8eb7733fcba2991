"""Flow from CroCo's own decoder: from a run's checkpoint, what is kept and trained, files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from midway.errors import MidwayError
from midway.evals.readouts.flow import build_network
from midway.evals.readouts.flow_protocols import StartConfig, synthetic
from midway.methods.croco import Croco, CrocoConfig
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.croco import CrocoEncoder
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.encoders.videomae import VideoMaeEncoder, VideoMaeEncoderConfig
from midway.models.flow.base import DptConfig, FlowModule
from midway.models.flow.network import BEST, FlowNetwork, load_flow_network, save_flow_network
from midway.models.flow.pair_network import PairFlowNetwork
from midway.train.checkpoint import save_checkpoint
from midway.train.optim import AdamW, OptimConfig

DPT = DptConfig(widths=(4, 6, 8, 10), fused_width=12, last_width=3)
DYNAMICS = DynamicsConfig(
    levels=(1, 3),
    midway_width=24,
    midway_depth=1,
    midway_heads=2,
    num_latents=2,
    backward_heads=3,
    forward_depth=2,
    forward_heads=3,
)
SIZE = (32, 48)


def frames() -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.randn(2, 2, 3, *SIZE).unbind()


@pytest.fixture
def method() -> Croco:
    torch.manual_seed(0)
    return Croco(CrocoConfig.tiny())


@pytest.fixture
def run(method: Croco, tmp_path: Path) -> Path:
    """A run of a method whose module is gone."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"method": {"name": "gone"}}))
    optimizer = AdamW(method, method.parameter_groups(), OptimConfig())
    scaler = torch.amp.GradScaler(enabled=False)
    save_checkpoint(folder, step=1, objective=method, optimizer=optimizer, scaler=scaler, keep=1)
    return folder


def built(run: Path, dpt: DptConfig = DPT, **start: object) -> FlowModule:
    preset = synthetic()
    config = StartConfig(network=str(run), **start)
    data = replace(preset.data, crop=SIZE)
    return build_network(replace(preset, start=config, data=data, dpt=dpt))


def is_same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_what_is_kept_of_a_run_is_a_choice_and_the_decoder_is_part_of_it(
    run: Path, method: Croco
) -> None:
    whole = built(run)
    assert isinstance(whole, PairFlowNetwork)
    assert is_same(whole.encoder, method.encoder)
    assert is_same(whole.between, method.decoder)
    nothing = built(run, keep="nothing")
    assert isinstance(nothing, PairFlowNetwork)
    assert nothing.config == whole.config
    assert not is_same(nothing.encoder, method.encoder)
    assert not is_same(nothing.between, method.decoder)
    # With fresh dynamics, as for the encoders of all other methods.
    fresh = built(run, keep="encoder", dynamics=DYNAMICS)
    assert isinstance(fresh, FlowNetwork)
    assert is_same(fresh.encoder, method.encoder)
    assert fresh.dynamics.config == DYNAMICS
    with pytest.raises(MidwayError, match="croco pair encoder instead of the dynamics; leave out"):
        built(run, dynamics=DYNAMICS)
    other = replace(DPT, inputs=("source", "source", "forward_top", "forward_bottom"))
    with pytest.raises(MidwayError, match=r"has its own four maps; leave out --dpt\.inputs"):
        built(run, dpt=other)


def test_the_head_reads_the_maps_of_the_methods_own_decoder(run: Path, method: Croco) -> None:
    network = built(run).eval()
    seen: list[Tensor] = []
    network.head.forward = lambda maps, size: seen.extend(maps) or torch.zeros(2, 3, *size)
    source, target = frames()
    with torch.no_grad():
        network(source, target)
        features = [method.encoder.maps(frame, (-1,)) for frame in (source, target)]
        wanted = method.decoder.maps(*features)
    for found, expected in zip(seen, wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("keep", ["all", "encoder"])
def test_finetuning_reaches_every_parameter_and_files_give_the_network_back(
    run: Path, tmp_path: Path, keep: str
) -> None:
    start = {"keep": keep} if keep == "all" else {"keep": keep, "dynamics": DYNAMICS}
    network = built(run, **start).train()
    source, target = (frame.requires_grad_() for frame in frames())
    network(source, target).square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    assert source.grad is not None
    assert target.grad is not None
    network.zero_grad()
    network.freeze()
    network.train()
    network(*frames()).square().mean().backward()
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert trained == {"head"}
    assert not network.between.training
    save_flow_network(network, tmp_path / BEST)
    again = load_flow_network(tmp_path)
    assert again.config == network.config
    with torch.no_grad():
        found, wanted = again(*frames()), network.eval()(*frames())
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_other_encoders_take_fresh_dynamics_if_their_levels_have_one_width() -> None:
    torch.manual_seed(2)
    sizes = VideoMaeEncoderConfig(
        image_size=(32, 32), num_frames=4, patch_size=8, width=24, depth=4, heads=2
    )
    network = FlowNetwork.from_encoder(VideoMaeEncoder(sizes), DYNAMICS, DPT, SIZE)
    assert network(*frames()).shape == (2, 3, *SIZE)
    tokens = []
    original = network.dynamics.forward
    network.dynamics.forward = lambda source, *others: (
        tokens.extend(source) or original(source, *others)
    )
    network(*frames())
    # The mean of the patches stands for the class token.
    assert all(x.shape == (2, 1 + 4 * 6, 24) for x in tokens)
    torch.testing.assert_close(tokens[0][:, 0], tokens[0][:, 1:].mean(1))
    resnet = ResNet(ResNetConfig(blocks=(1, 1, 1, 1), width=4))
    with pytest.raises(MidwayError, match="levels of a resnet differ in width or stride"):
        FlowNetwork.from_encoder(resnet, DYNAMICS, DPT, SIZE)
    croco = CrocoEncoder(CrocoConfig.tiny().encoder)
    with pytest.raises(MidwayError, match=r"give one like --data\.crop 32 48"):
        FlowNetwork.from_encoder(croco, DYNAMICS, DPT, (40, 50))


def test_a_header_of_parts_that_do_not_exist_is_refused_with_its_file(
    run: Path, tmp_path: Path
) -> None:
    network = built(run)
    spec = replace(network.config.pair_encoder, kind="vgg")
    network.config = replace(network.config, pair_encoder=spec)
    save_flow_network(network, tmp_path / BEST)
    with pytest.raises(MidwayError, match=rf"{BEST}: .*no 'vgg'; there are croco"):
        load_flow_network(tmp_path)
