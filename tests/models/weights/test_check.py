"""Files that state any sizes, or hold values that no network has, at every door."""

import json
import resource

import pytest
import torch
from safetensors.torch import save_file

from midway.config import to_json
from midway.errors import MidwayError
from midway.models.flow.network import (
    DptConfig,
    FlowNetwork,
    FlowNetworkConfig,
    load_flow_network,
    save_flow_network,
)
from midway.models.midway import MidwayNetwork
from midway.models.weights.check import meta_state
from midway.models.weights.files import FLOW as HEADER
from midway.models.weights.load import load
from midway.models.weights.save import save
from midway.models.weights.sources import load_encoder
from tests.models.networks import DYNAMICS, ENCODER, random_network, tiny

FLOW = FlowNetworkConfig(
    encoder=ENCODER,
    dynamics=DYNAMICS,
    dpt=DptConfig(widths=(4, 8, 12, 16), fused_width=8, last_width=4),
    crop=(32, 32),
)


def peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": {"width": 9216, "heads": 3}},
        {"encoder": {"image_size": [32768, 32768]}},
        {"encoder": {"depth": 256}},
        {"head": {"num_prototypes": 2**24, "bottleneck": 2**16}},
        {"dynamics": {"forward_depth": 32, "midway_width": 60_000}},
    ],
)
def test_sizes_of_a_header_are_compared_before_memory_is_taken(tmp_path, change):
    sizes = to_json(tiny())
    for part, values in change.items():
        sizes[part] = sizes[part] | values
    path = tmp_path / "net.safetensors"
    save_file({"encoder.x": torch.zeros(1)}, path, {"midway": json.dumps(sizes)})
    before = peak_megabytes()
    with pytest.raises(MidwayError, match=r"net\.safetensors: .*tensors do not match the network"):
        load(path)
    spec = {"kind": "vit", "config": sizes["encoder"] | {"width": 9600, "heads": 4}}
    save_file({"x": torch.zeros(1)}, path, {"encoders": json.dumps({"encoder": spec})})
    with pytest.raises(MidwayError, match="tensors do not match its vit"):
        load_encoder(str(path))
    assert peak_megabytes() - before < 500


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("encoder", {"depth": 10**6}),
        ("encoder", {"width": 3 * 10**6, "heads": 3}),
        ("encoder", {"num_registers": 10**9}),
        ("encoder", {"image_size": [800_000, 800_000]}),
        ("encoder", {"patch_size": 10**6}),
        ("dynamics", {"forward_depth": 500_000}),
        ("dynamics", {"midway_depth": 500_000}),
        ("dynamics", {"num_latents": 10**9}),
        ("head", {"num_prototypes": 2 * 10**9}),
    ],
)
def test_counts_have_upper_bounds(tmp_path, part, values):
    sizes = to_json(tiny())
    sizes[part] |= values
    path = tmp_path / "net.safetensors"
    save_file({"encoder.x": torch.zeros(1)}, path, {"midway": json.dumps(sizes)})
    with pytest.raises(MidwayError, match=r"net\.safetensors: .* is too large; give"):
        load(path)


def test_a_module_on_the_meta_device_draws_nothing_from_the_generator():
    before = torch.get_rng_state()
    state = meta_state(lambda: MidwayNetwork(tiny(starts_matching=True)))
    assert torch.equal(torch.get_rng_state(), before)
    assert {tensor.device.type for tensor in state.values()} == {"meta"}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_network_that_is_not_finite_is_neither_written_nor_read(tmp_path, suffix):
    network, path = random_network(), tmp_path / f"net{suffix}"
    save(network, path)
    name = next(name for name in network.state_dict() if name.endswith("norm.bias"))
    network.state_dict()[name].fill_(torch.nan)
    with pytest.raises(MidwayError, match=r"net\.\w+: its tensor .* not finite"):
        save(network, tmp_path / f"net{suffix}")
    if suffix == ".pth":
        content = torch.load(path, weights_only=True)
        content["student"]["module.backbone.norm.bias"][0] = torch.inf
        torch.save(content, path)
    else:
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(state, path, {"midway": json.dumps(to_json(network.config))})
    with pytest.raises(MidwayError, match=r"its tensor .*norm\.bias has values that are not fin"):
        load(path, encoder_heads=2)


def test_weights_too_large_for_half_precision_are_not_rounded_to_infinity(tmp_path):
    network = random_network()
    with torch.no_grad():
        network.encoder.norm.bias[0] = 1e5
    with pytest.raises(MidwayError, match=r"tensor encoder\.norm\.bias has values above 65504"):
        save(network, tmp_path / "half.safetensors", half=True)
    assert not [*tmp_path.iterdir()]


def test_a_double_above_the_range_of_float32_is_refused(tmp_path):
    network = random_network()
    state = {name: tensor.double().clone() for name, tensor in network.state_dict().items()}
    state["encoder.norm.bias"][0] = 1e300
    header = {"midway": json.dumps(to_json(network.config))}
    save_file(state, tmp_path / "net.safetensors", header)
    with pytest.raises(MidwayError, match=r"encoder\.norm\.bias has values that are not finite"):
        load(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state, _: state.popitem(), "1 missing"),
        (lambda state, _: state["encoder.norm.bias"].fill_(torch.nan), r"encoder\.norm\.bias has"),
        (lambda _, header: header.update({HEADER: "{"}), "its header is not JSON"),
        (lambda _, header: header.update({HEADER: "[" * 10**5}), "its header is not JSON"),
        (lambda _, header: header.update({HEADER: '{"dpt": {"fused_width": 10000000}}'}), "large"),
        (lambda _, header: header.update({HEADER: "{}"}), "do not match the flow network"),
    ],
)
def test_a_damaged_flow_network_is_one_line(tmp_path, spoil, message):
    network, path = FlowNetwork(FLOW), tmp_path / "flow.safetensors"
    save_flow_network(network, path)
    assert load_flow_network(path).config == FLOW
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    header = {HEADER: json.dumps(to_json(FLOW))}
    spoil(state, header)
    save_file(state, path, header)
    with pytest.raises(MidwayError, match=message) as caught:
        load_flow_network(path)
    assert "\n" not in str(caught.value)
    assert "flow.safetensors" in str(caught.value)
