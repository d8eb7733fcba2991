"""Files of RAFT's weights: torchvision's names, the original's, and what does not fit."""

from pathlib import Path

import pytest
import torch

from midway.errors import MidwayError
from midway.models.flow.raft import Raft
from midway.models.flow.raft_weights import load_raft, original_name

PUBLISHED = (
    "module.fnet.conv1.weight",
    "module.fnet.layer2.0.downsample.0.weight",
    "module.cnet.norm1.running_mean",
    "module.cnet.layer1.1.norm2.num_batches_tracked",
    "module.cnet.layer3.0.downsample.1.weight",
    "module.cnet.conv2.bias",
    "module.update_block.encoder.convc1.weight",
    "module.update_block.encoder.convf2.bias",
    "module.update_block.encoder.conv.weight",
    "module.update_block.gru.convq2.weight",
    "module.update_block.flow_head.conv2.bias",
    "module.update_block.mask.0.weight",
    "module.update_block.mask.2.weight",
)
"""Some names in the original's raft-things.pth."""


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return Raft().state_dict()


def original(state: dict[str, torch.Tensor], prefix: str = "module.") -> dict[str, torch.Tensor]:
    """Return a state dict in the original's layout, which lists the norms of shortcuts twice."""
    renamed = {f"{prefix}{original_name(name)}": tensor for name, tensor in state.items()}
    norms = {n: t for n, t in renamed.items() if "downsample.1." in n}
    return renamed | {n.replace("downsample.1.", "norm3."): t for n, t in norms.items()}


def test_names_are_those_of_the_original(state: dict[str, torch.Tensor]):
    assert {*PUBLISHED} <= {*original(state)}


@pytest.mark.parametrize("layout", ["torchvision", "original", "part of a checkpoint"])
def test_every_layout_is_loaded_frozen_and_in_evaluation_mode(
    layout: str, state: dict[str, torch.Tensor], tmp_path: Path
):
    contents = {
        "torchvision": state,
        "original": original(state),
        "part of a checkpoint": {"model": original(state, "flow_model."), "epoch": 3},
    }[layout]
    torch.save(contents, tmp_path / "raft.pth")
    network = load_raft(tmp_path / "raft.pth", iterations=24)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert network.iterations == 24
    assert not any(part.training for part in network.modules())
    assert not any(p.requires_grad for p in network.parameters())


def test_tensors_that_do_not_match_are_named(state: dict[str, torch.Tensor], tmp_path: Path):
    contents = original(state)
    del contents["module.update_block.mask.2.bias"]
    contents["module.extra"] = torch.zeros(2)
    torch.save(contents, tmp_path / "raft.pth")
    with pytest.raises(MidwayError, match=r"RAFT \(large\): 1 missing \(module.update_block.mask"):
        load_raft(tmp_path / "raft.pth")
    with pytest.raises(MidwayError, match=r"1 unknown \(module.extra\)"):
        load_raft(tmp_path / "raft.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(MidwayError, match=r"no RAFT in it, but weight; give raft-things\.pth"):
        load_raft(tmp_path / "other.pth")
