"""Python code in README and guides runs as it is printed.

Blocks of a page share their names and run in one folder, which holds the files that the page
speaks of. Sets of worlds are cut to two, so that the blocks take seconds.
`tests/cli/test_guide_commands.py` runs the shell commands.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import midway
from midway.data.flow import datasets as flow_datasets
from midway.data.flow.files import write_flow
from midway.data.segmentation import layouts
from midway.data.synthetic import write
from midway.data.synthetic.world import WorldConfig
from midway.data.views.render import example_clips
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.weights.sources import EncoderSource
from midway.train.objective import Progress
from tests.models import networks

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
SMALL = WorldConfig(height=48, width=64, num_frames=8, fps=4, num_objects=2)


def blocks(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.M)


def network_at_level_9() -> MidwayNetwork:
    """Network with the levels of the paper on images of 14 x 14 patches, as narrow as possible."""
    torch.manual_seed(0)
    size = {"image_size": (56, 56), "patch_size": 4, "width": 24, "depth": 12, "heads": 2}
    encoder = type(networks.ENCODER)(**size, drop_path=0.0)
    return MidwayNetwork(
        NetworkConfig(
            encoder=encoder,
            dynamics=replace(networks.DYNAMICS, levels=(3, 6, 9)),
            head=networks.HEAD,
        )
    ).eval()


def for_analysis(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    network = network_at_level_9()
    monkeypatch.setattr(midway, "load", lambda name: network, raising=False)
    (video,) = write.write_videos(folder, SMALL, seeds=[0])
    video.rename(folder / "video.mp4")
    source, target = torch.randn(2, 1, 3, 56, 56)
    frames = torch.randint(256, (3, 3, 56, 56), dtype=torch.uint8)
    return {
        "torch": torch,
        "network": network,
        "source": source,
        "target": target,
        "frames": frames,
        "points": torch.tensor([[8.0, 9.0]]),
        "start_frames": torch.tensor([0]),
    }


def for_datasets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for registered in (layouts.DATASETS, flow_datasets.FLOW_SETS):
        monkeypatch.setitem(registered, "rooms", None)  # restored, that is removed, at the end
    rng = np.random.default_rng(0)
    for part, suffix in (("images", "jpg"), ("masks", "png")):
        (folder / f"rooms/{part}/train").mkdir(parents=True)
        shape = (8, 12) if part == "masks" else (8, 12, 3)
        pixels = rng.integers(0, 4, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"rooms/{part}/train/a.{suffix}")
    (folder / "rooms-flow/hall").mkdir(parents=True)
    for number in (1, 2):
        image = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"rooms-flow/hall/000{number}.png")
    flow = np.ones((8, 12, 2), np.float32)
    write_flow(folder / "rooms-flow/hall/0001.flo", flow)
    return {}


def for_recorded_flow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for direction in ("forward", "backward"):
        (folder / "flow" / direction).mkdir(parents=True)
        for number in range(2):
            path = folder / "flow" / direction / f"{number}.flo"
            write_flow(path, np.zeros((4, 6, 2), np.float32))
    return {}


def for_export(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    network = midway.load("synthetic-tiny")
    source, target = torch.randn(2, 2, 3, 48, 48)
    program = torch.export.export(FlowOfZero(), (source, target))
    torch.export.save(program, folder / "flow.pt2")
    # Uploads are tested in tests/export/test_hub.py.
    monkeypatch.setattr(midway.HubModel, "push_to_hub", lambda self, name, private: name)
    monkeypatch.setattr(midway.HubModel, "from_pretrained", lambda name: midway.HubModel(network))
    return {"midway": midway, "network": network, "source": source, "target": target}


class FlowOfZero(torch.nn.Module):
    """Stands for an exported flow network."""

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"flow": (target - source)[:, :2]}


def for_features(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    pytest.importorskip("transformers", reason="transformers is not installed")
    encoder = midway.load_encoder("synthetic-tiny")
    midway.save(encoder, folder / "encoder.safetensors")
    # Stands for timm, with which tests/models/encoders/test_intermediates.py compares.
    timm = ModuleType("timm")
    vars(timm)["create_model"] = lambda name, num_classes, **sizes: encoder
    monkeypatch.setitem(sys.modules, "timm", timm)
    return {"pictures": [np.zeros((60, 80, 3), np.uint8)]}


PREPARED: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "docs/ANALYSIS.md": for_analysis,
    "docs/ADD_DATASET.md": for_datasets,
    "docs/EXPORT.md": for_export,
    "docs/FEATURES.md": for_features,
    "docs/methods/poodle.md": for_recorded_flow,
}

WRITTEN = {
    "docs/ANALYSIS.md": ("gates.png", "latents.parquet", "tokens.mp4"),
    "docs/DATA.md": ("walk.signals.npz",),
    "docs/methods/poodle.md": ("walk.signals.npz", "videos"),
}
"""Files that the blocks of a page leave."""
ELSEWHERE = {"docs/OWN_VIDEO.md": "tests/test_own_video.py"}
"""Pages of which another test runs the Python blocks, together with their commands."""


@pytest.fixture
def two_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the sets of worlds that the writers make."""
    for name in ("write_videos", "write_flow_dataset", "write_segmentation_dataset"):
        monkeypatch.setattr(write, name, cut(getattr(write, name)))


def cut(writer: Callable[..., Any]) -> Callable[..., Any]:
    def write_two(*words: Any, **options: Any) -> Any:
        seeds = {key: [*it][:2] for key, it in options.items() if key.endswith("seeds")}
        return writer(*words, **options | seeds)

    return write_two


def test_pages_that_run_elsewhere_are_named_there():
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text()


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p) and p not in ELSEWHERE])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, monkeypatch, two_worlds, capsys):
    monkeypatch.chdir(tmp_path)
    names = PREPARED[page](tmp_path, monkeypatch) if page in PREPARED else {}
    promised = []
    # A module of its own, because dataclasses look up where their class is defined.
    module = ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", module)
    vars(module).update(names)
    for code in blocks(page):
        exec(compile(code, page, "exec"), vars(module))
        promised += re.findall(r"^print.*  # ([(\[].*?[)\]])(?::|$)", code, flags=re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised
    assert {*WRITTEN.get(page, ())} <= {path.name for path in tmp_path.iterdir()}


def test_the_readme_prints_the_shapes_beside_its_lines():
    (code,) = blocks("README.md")
    assert len(re.findall(r"^print.*  # ", code, flags=re.MULTILINE)) == 3


def test_the_method_of_the_guide_takes_a_step():
    module = ModuleType("next_token")
    exec(blocks("docs/METHODS.md")[0], vars(module))
    method = module.METHOD(module.METHOD.Config.tiny())
    out = method.loss(example_clips(method.spec, 2))
    out.loss.backward()
    assert out.loss.isfinite()
    with torch.no_grad():
        method.after_step(Progress(step=0, steps=2, steps_per_epoch=1, samples=2))


def test_the_evaluation_of_the_guide_measures_a_network():
    module = ModuleType("channels")
    exec(blocks("docs/ADD_EVALUATION.md")[0], vars(module))
    results = module.evaluate(network=EncoderSource(network="synthetic-tiny"), num_images=4)
    assert results["mean"] > results["smallest"] > 0
    assert results["weights_sha256"]
    assert "on average" in module.report(results)
