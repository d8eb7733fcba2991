"""Finetuning for flow: what is trained, what is kept, and that it learns motion."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from midway.config import to_json
from midway.data.flow.files import write_flow
from midway.data.flow.loader import FlowBatch
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_flow_dataset
from midway.errors import MidwayError
from midway.evals.flow_finetune import (
    PROTOCOLS,
    config_from_json,
    evaluate,
    finetune,
    report,
)
from midway.evals.readouts.flow import FlowFinetuning, Validation, build_network
from midway.evals.readouts.flow_protocols import StartConfig, synthetic
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.models.flow.network import BEST, LAST, DptConfig, FlowNetwork, load_flow_network
from midway.models.midway import HeadConfig, MidwayNetwork, NetworkConfig
from midway.models.weights.load import load
from midway.models.weights.release import ReleaseHints
from midway.models.weights.save import save
from midway.train.objective import Progress
from tests.models.encoders.fake_timm import install_timm
from tests.models.flow.test_network import CONFIG

SIZE = (32, 48)
WORLD = WorldConfig(
    height=SIZE[0], width=SIZE[1], num_frames=9, fps=4, num_objects=2, object_speed=12
)
SMALL = NetworkConfig(
    encoder=EncoderConfig(
        image_size=SIZE, patch_size=8, width=48, depth=3, heads=2, drop_path=0.0, init_std=0.05
    ),
    dynamics=DynamicsConfig(
        levels=(1, 2),
        midway_width=24,
        midway_depth=2,
        midway_heads=2,
        num_latents=4,
        forward_depth=2,
        backward_heads=2,
        forward_heads=2,
        init_std=0.05,
    ),
    head=HeadConfig(hidden=16, bottleneck=8, num_prototypes=32),
)


@pytest.fixture
def config(tmp_path: Path):
    """A few steps on 8 pairs, which are validated on too."""
    write_flow_dataset(tmp_path / "train", WORLD, seeds=range(1))
    torch.manual_seed(0)
    save(MidwayNetwork(SMALL), tmp_path / "net.safetensors")
    preset = synthetic()
    return replace(
        preset,
        start=StartConfig(network=str(tmp_path / "net.safetensors")),
        data=replace(
            preset.data,
            root=tmp_path,
            crop=SIZE,
            augment=False,
            batch_size=4,
            num_workers=0,
        ),
        validation=replace(preset.validation, parts=preset.data.parts, every_steps=2),
        dpt=DptConfig(widths=(16, 16, 16, 16), fused_width=32, last_width=16),
        run=replace(preset.run, folder=tmp_path / "run", steps=6, checkpoint_every=2),
    )


def validations(folder: Path):
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def test_the_papers_protocol_is_that_of_the_published_code():
    config = PROTOCOLS["paper"]()
    assert config.run.steps == 240 * 30_000 / 8
    assert config.data.crop == (320, 384)
    assert (config.optim.lr, config.optim.scale_lr, config.optim.betas) == (
        2e-5,
        False,
        (0.9, 0.95),
    )
    assert config.optim.weight_decay == config.optim.final_weight_decay == 0.05
    assert (config.optim.clip, config.optim.warmup_epochs, config.optim.final_lr) == ("none", 1, 0)
    assert (config.validation.every_steps, config.validation.overlap) == (30_000 / 8, 0.7)
    assert config.run.precision == "32-true"
    # As in CroCo v2's commands; own pairs are compared with nothing published, and 8 times faster.
    overlaps = {name: make().validation.final_overlap for name, make in PROTOCOLS.items()}
    assert overlaps == dict.fromkeys(PROTOCOLS, 0.9) | {"folder": 0.7}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_comes_back_from_its_json(name):
    config = PROTOCOLS[name]()
    values = json.loads(json.dumps(to_json(config)))
    assert config_from_json(values, where="test") == config


def test_the_version_of_a_protocol_is_that_of_its_numbers_and_not_of_the_machine():
    protocols = {name: make() for name, make in PROTOCOLS.items()}
    assert {name: config.protocol for name, config in protocols.items()} == {
        name: name for name in PROTOCOLS
    }
    assert len({config.version() for config in protocols.values()}) == len(PROTOCOLS)
    config = protocols["paper"]
    moved = replace(
        config,
        data=replace(config.data, root=Path("elsewhere"), num_workers=9),
        validation=replace(config.validation, tiles_at_once=1),
        run=replace(config.run, folder=Path("elsewhere"), log_every=1, seed=5),
        start=replace(config.start, network="another"),
    )
    assert moved.version() == config.version()
    for changed in (
        replace(config, data=replace(config.data, crop=(224, 224))),
        replace(config, start=replace(config.start, frozen=True)),
        replace(config, optim=replace(config.optim, lr=1e-4)),
        replace(config, dpt=replace(config.dpt, fused_width=128)),
        replace(config, run=replace(config.run, precision="bf16-mixed")),
        replace(config, validation=replace(config.validation, final_overlap=0.5)),
    ):
        assert changed.version() != config.version()


def test_a_run_keeps_the_best_and_the_last_network_and_scores_the_best(config):
    results = evaluate(config)
    folder = config.run.folder
    found = validations(folder)
    assert [line["step"] for line in found] == [2, 4, 6]
    assert {BEST, LAST, "config.json", "metrics.jsonl", "results.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert results is not None
    assert results["pairs"] == 8
    assert (results["steps"], results["overlap"]) == (6, 0.9)
    assert results["protocol"] == {"name": "synthetic", "version": config.version()}
    assert json.loads((folder / "results.json").read_text()) == results
    # One tile covers the pairs, so overlap does not matter.
    assert results["epe"] == pytest.approx(min(line["epe"] for line in found), rel=1e-4)
    assert len(list((folder / "pictures").glob("*.png"))) == 8
    assert config_from_json(json.loads((folder / "config.json").read_text()), where="") == config


def test_a_resumed_run_ends_like_one_that_was_not_stopped(config, tmp_path: Path):
    finetune(config)
    half = replace(config, run=replace(config.run, folder=tmp_path / "half", steps=6))
    stopped = FlowFinetuning.after_step

    def stop(self, progress):
        stopped(self, progress)
        if progress.step == 4:
            raise KeyboardInterrupt

    FlowFinetuning.after_step = stop
    try:
        with pytest.raises(KeyboardInterrupt):
            finetune(half)
    finally:
        FlowFinetuning.after_step = stopped
    finetune(half, resume=True)
    assert validations(config.run.folder) == validations(half.run.folder)
    one, two = (load_flow_network(c.run.folder).state_dict() for c in (config, half))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_kept_of_the_pretrained_weights_is_a_choice(config):
    pretrained = load(config.start.network)
    kept = {}
    for keep in ("all", "encoder", "nothing"):
        network = build_network(replace(config, start=replace(config.start, keep=keep)))
        parts = ((network.encoder, pretrained.encoder), (network.dynamics, pretrained.dynamics))
        kept[keep] = [
            all(
                torch.equal(a, b)
                for a, b in zip(mine.parameters(), theirs.parameters(), strict=True)
            )
            for mine, theirs in parts
        ]
        assert network.config.crop == config.data.crop
    assert kept == {"all": [True, True], "encoder": [True, False], "nothing": [False, False]}


def encoder_file(tmp_path: Path) -> tuple[VisionTransformer, str]:
    """An encoder alone; its position table is square, as in all published files."""
    torch.manual_seed(7)
    vit = VisionTransformer(replace(SMALL.encoder, image_size=(32, 32)))
    path = str(tmp_path / "vit.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in vit.state_dict().items()}, path)
    return vit, path


def starting_from(config, network, **changes):
    start = StartConfig(network=network, dynamics=SMALL.dynamics, **changes)
    return replace(config, start=start)


def test_an_encoder_file_is_finetuned_with_fresh_dynamics_and_this_is_told(
    config, tmp_path: Path, caplog
):
    square, path = encoder_file(tmp_path)
    config = starting_from(config, path, release=ReleaseHints(encoder_heads=2))
    network = build_network_again(config)
    assert caplog.messages == [f"{path}: has no dynamics; they are initialised randomly"]
    mine, theirs = network.encoder.state_dict(), square.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert network.config.encoder.heads == 2
    again, other = (
        build_network_again(replace(config, run=replace(config.run, seed=seed))) for seed in (0, 1)
    )
    dynamics = [n.dynamics.midway_path.up.weight for n in (network, again, other)]
    assert torch.equal(dynamics[0], dynamics[1])
    assert not torch.equal(dynamics[0], dynamics[2])
    results = evaluate(config)
    assert results is not None
    trained = load_flow_network(config.run.folder)
    assert not torch.equal(trained.encoder.pos_embed, square.pos_embed)
    assert not torch.equal(trained.dynamics.midway_path.up.weight, dynamics[0])


def test_an_untrained_encoder_has_the_sizes_of_its_file_alone(config, tmp_path: Path):
    square, path = encoder_file(tmp_path)
    hints = ReleaseHints(encoder_heads=2)
    network = build_network(starting_from(config, path, keep="nothing", release=hints))
    assert network.encoder.pos_embed.shape == square.pos_embed.shape
    assert not torch.equal(network.encoder.pos_embed, square.pos_embed)


def test_a_model_of_timm_is_finetuned(config, monkeypatch):
    install_timm(monkeypatch)
    config = starting_from(config, "timm:vit_tiny")
    torch.manual_seed(0)
    before = build_network(config).encoder.state_dict()
    assert evaluate(config) is not None
    after = load_flow_network(config.run.folder).encoder.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_random_is_a_fresh_vit_s_with_the_dynamics_of_the_paper(config):
    with pytest.raises(MidwayError, match=r"32x48 pixels is not a multiple of two patches of 16"):
        build_network(replace(config, start=StartConfig(network="random")))
    config = replace(config, data=replace(config.data, crop=(32, 64)))
    random = replace(config, start=StartConfig(network="random"))
    network = build_network(random)
    assert network.config.encoder == replace(EncoderConfig(), drop_path=0.0)
    assert network.config.dynamics == DynamicsConfig()
    unfit = replace(
        config, start=StartConfig(network="random", dynamics=DynamicsConfig(levels=(12,)))
    )
    with pytest.raises(MidwayError, match=r"levels \(12,\) must lie below"):
        build_network(unfit)


def test_a_midway_network_keeps_the_sizes_of_its_dynamics(config):
    with pytest.raises(MidwayError, match=r"leave out --start.dynamics"):
        build_network(starting_from(config, config.start.network))


def test_what_an_encoder_alone_cannot_use_is_refused(config, tmp_path: Path):
    _, path = encoder_file(tmp_path)
    for network, changes, message in (
        (path, {"encoder": "teacher"}, "without a teacher; leave out --start.encoder"),
        ("random", {"encoder": "teacher"}, "without a teacher"),
        (
            "random",
            {"release": ReleaseHints(encoder_heads=2)},
            "random: is an encoder.*all --...-heads$",
        ),
        ("timm:vit_tiny", {"release": ReleaseHints(image_size=(32, 32))}, "leave out --image-size"),
        (
            path,
            {"release": ReleaseHints(encoder_heads=2, midway_heads=2)},
            "all --...-heads but --encoder",
        ),
    ):
        with pytest.raises(MidwayError, match=message):
            build_network(starting_from(config, network, **changes))


def test_frozen_only_the_head_moves(config):
    frozen = replace(config, start=replace(config.start, frozen=True))
    finetune(frozen)
    network, pretrained = load_flow_network(config.run.folder), load(config.start.network)
    for part in ("encoder", "dynamics"):
        mine, theirs = (getattr(n, part).state_dict() for n in (network, pretrained))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    fresh = build_network_again(frozen)
    assert not torch.equal(network.head.before.weight, fresh.head.before.weight)


def build_network_again(config) -> FlowNetwork:
    torch.manual_seed(config.run.seed)
    made = build_network(config)
    assert isinstance(made, FlowNetwork)
    return made


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": ()},
        {"every_steps": 0},
        {"overlap": 1.0},
        {"final_overlap": 1.0},
        {"tiles_at_once": 0},
    ],
)
def test_a_validation_that_cannot_be_is_refused_before_the_run(config, changes):
    with pytest.raises(MidwayError, match=r"give 1 or more of both|give an overlap"):
        replace(config.validation, **changes)


def test_further_tests_are_scored_beside_the_validation(config):
    tests = config.validation.parts
    config = replace(config, validation=replace(config.validation, tests=tests))
    results = evaluate(replace(config, run=replace(config.run, steps=2)))
    other = results["tests"]["synthetic all"]
    assert (other["epe"], other["pairs"]) == (results["epe"], results["pairs"])
    assert report(results).count("mean over 8 pairs") == 2


def test_flow_without_a_known_vector_is_refused_before_the_run(config, tmp_path: Path):
    for path in (tmp_path / "train").rglob("*.flo"):
        write_flow(path, np.full((*SIZE, 2), np.inf, np.float32))
    with pytest.raises(MidwayError, match=r"\.flo: no vector of it or of 7 other pairs"):
        finetune(config)


def test_a_process_without_a_validation_pair_sums_as_the_others_do(config, monkeypatch):
    monkeypatch.setattr("midway.evals.readouts.flow._rank", lambda: (1, 2))

    def add_the_first_process(total):
        total += torch.tensor([3.0, 1.0])  # fails for whole numbers

    monkeypatch.setattr(torch.distributed, "all_reduce", add_the_first_process)
    validation = Validation(pairs=[], config=config.validation, folder=Path())
    assert FlowFinetuning(build_network(config), validation)._validation_epe() == 3.0


def test_a_step_without_a_known_pixel_has_no_error(config):
    objective = FlowFinetuning(
        build_network(config), Validation(pairs=[], config=config.validation, folder=Path())
    )
    images = torch.zeros(1, 3, *SIZE, dtype=torch.uint8)
    unknown = torch.full((1, 2, *SIZE), torch.inf)
    output = objective(FlowBatch(source=images, target=images, flow=unknown))
    assert output.loss == 0
    assert output.logs["epe"].isnan()


def test_no_network_is_an_error_in_one_line(config):
    with pytest.raises(MidwayError, match=r"give --network RUN"):
        build_network(replace(config, start=StartConfig()))


def test_validation_leaves_the_mode_and_the_gradients_as_they_were(config, tmp_path: Path):
    torch.manual_seed(0)
    objective = FlowFinetuning(
        FlowNetwork(replace(CONFIG, crop=(32, 32))).train(),
        Validation(pairs=[], config=config.validation, folder=tmp_path),
    )
    batch = FlowBatch(
        source=torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8),
        target=torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8),
        flow=torch.randn(2, 2, 32, 32),
    )
    batch.flow[:, :, :16] = torch.inf
    out = objective(batch)
    out.loss.backward()
    assert out.logs["epe"].isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
    # Not a step that is validated after: nothing is read, though there is nothing to read.
    objective.after_step(Progress(step=0, steps=100, steps_per_epoch=1.0, samples=2))
    assert not list(tmp_path.glob("*.jsonl"))
    assert objective.network.training


@pytest.mark.slow
def test_64_pairs_are_learnt_to_half_a_pixel(config):
    write_flow_dataset(config.data.root / "train", WORLD, seeds=range(8))
    config = replace(
        config,
        data=replace(config.data, batch_size=16),
        validation=replace(config.validation, every_steps=1_000),
        optim=replace(config.optim, lr=2e-3),
        run=replace(config.run, steps=320, checkpoint_every=1_000),
    )
    finetune(config)
    (found,) = validations(config.run.folder)
    assert found["epe"] < 0.5
    assert len(list((config.data.root / "train/training/flow").glob("*/*.flo"))) == 64
