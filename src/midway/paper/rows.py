"""Rows of tables 1 to 7: a pretraining preset, its evaluations, and the paper's numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from midway.paper.evaluations import LAST_BLOCKS, Evaluation, ablation_flow, flow, segmentation

RELEASED = "the paper reads a published checkpoint instead of pretraining"
Numbers = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Row of a table."""

    name: str
    preset: str
    """Pretraining experiment."""
    evaluations: tuple[Evaluation, ...]
    numbers: Numbers
    """The paper's, in the order of the evaluations' metrics; None where it states none."""
    note: str = ""

    def __post_init__(self) -> None:
        assert len(self.numbers) == sum(len(each.metrics) for each in self.evaluations)


def linear(protocol: str, preset: str) -> Evaluation:
    """Return a linear readout of the features that the paper reads of a method."""
    if "midway" in preset or preset.startswith("table"):
        return segmentation(protocol)
    if "poodle" in preset:
        decoder = ("--weights", "teacher_decoder", "--readout.levels", "-1")
        return segmentation(protocol, "--features", "encoder", *decoder)
    features = "static_clip" if "videomae" in preset else "encoder"
    return segmentation(protocol, "--features", features, *LAST_BLOCKS)


def upernet(protocol: str, preset: str) -> Evaluation:
    """Return an UperNet readout of a method's encoder."""
    if "poodle" in preset:
        return segmentation(protocol, "--readout.levels", "1", "2", "3", "4")
    words = ("--features", "static_clip") if "videomae" in preset else ()
    return segmentation(protocol, *words)


def driving(name: str, preset: str, *numbers: float, note: str = "") -> Row:
    """Return a row of table 1; numbers of flow may be left out, as the paper does for two rows."""
    evaluations = [
        read(f"{dataset}-{kind}", preset)
        for dataset in ("bdd100k", "cityscapes")
        for kind, read in (("linear", linear), ("upernet", upernet))
    ]
    evaluations += [flow()] if len(numbers) > 8 else []
    return Row(name=name, preset=preset, evaluations=tuple(evaluations), numbers=numbers, note=note)


def walking(name: str, preset: str, *numbers: float | None, note: str = "") -> Row:
    """Return a row of tables 2 and 4."""
    evaluations = [upernet(f"{dataset}-upernet", preset) for dataset in ("wt-sem", "ade20k")]
    evaluations += [flow()] if len(numbers) > 4 else []
    return Row(name=name, preset=preset, evaluations=tuple(evaluations), numbers=numbers, note=note)


def encoder_only(*numbers: float, frozen: bool) -> Row:
    """Return the row of Midway's encoder with fresh dynamics."""
    words, name = ("--start.keep", "encoder"), "flow-encoder"
    evaluation = flow(
        *words, *(FROZEN if frozen else ()), name=f"{name}-frozen" if frozen else name
    )
    return Row(
        name="Midway ViT-S, encoder only",
        preset="bdd100k.midway_vits",
        evaluations=(evaluation,),
        numbers=numbers,
    )


def frozen_flow(name: str, preset: str, *numbers: float) -> Row:
    """Return a row of table 7."""
    evaluation = flow(*FROZEN, name="flow-frozen")
    return Row(name=name, preset=preset, evaluations=(evaluation,), numbers=numbers)


def ablation(name: str, preset: str, miou: float, epe: float, *, note: str = "") -> Row:
    """Return a row of tables 3 and 5."""
    read: tuple[str, ...] = ()
    if preset in WITHOUT_BACKWARD:
        read = ("--features", "encoder", *LAST_BLOCKS)
    elif preset == "table3.row8_no_multi_level":
        read = ("--readout.levels", "9", "12")
    return Row(
        name=name,
        preset=preset,
        evaluations=(segmentation("bdd100k-linear", *read), ablation_flow()),
        numbers=(miou, None, epe),
        note=note,
    )


FROZEN = ("--start.frozen",)
WITHOUT_BACKWARD = (
    "table3.row1_base",
    "table3.row2_latent_dynamics",
    "table3.row4_multi_level_refinement",
    "table3.row7_no_backward",
)
"""Presets whose networks have no backward features."""
UNCLEAR = "the marks of rows 3 and 4 are unreadable; they may be the other way round"

TABLE_1 = (
    driving("PooDLe R50", "bdd100k.poodle_r50", 35.1, 87.8, 47.4, 91.0, 44.8, 89.0, 59.2, 93.4),
    driving(
        *("iBOT ViT-S", "bdd100k.ibot_vits", 27.2, 85.4, 35.5, 88.7, 32.0, 86.2, 44.0, 90.3),
        *(18.5, 18.0, 13.0, 13.7),
    ),
    driving(
        *("DINO ViT-S", "bdd100k.dino_vits", 36.7, 89.3, 49.3, 92.0, 41.5, 90.4, 57.9, 93.3),
        *(16.8, 13.8, 11.5, 10.8),
    ),
    driving(
        *("VideoMAE ViT-S", "bdd100k.videomae_vits", 7.8, 50.3, 10.9, 58.6, 6.4, 44.9, 11.7, 62.9),
        *(16.2, 16.1, 7.2, 7.6),
    ),
    driving(
        *("CroCo v2 ViT-S", "bdd100k.croco_vits", 21.2, 80.0, 31.9, 87.0, 24.0, 81.5, 37.5, 89.0),
        *(9.7, 9.4, 5.1, 5.8),
    ),
    driving(
        *("DoRA ViT-S", "bdd100k.dora_vits", 30.4, 87.2, 40.8, 90.0, 36.2, 88.2, 51.3, 91.9),
        *(16.5, 15.1, 11.5, 11.9),
    ),
    driving(
        *("DynaMo ViT-S", "bdd100k.dynamo_vits", 36.8, 89.4, 47.4, 91.7, 41.2, 90.3, 57.2, 93.1),
        note="with DINO's term",
    ),
    encoder_only(16.6, 13.5, 11.7, 10.9, frozen=False),
    driving(
        *("Midway ViT-S", "bdd100k.midway_vits", 39.7, 90.3, 50.4, 92.4, 43.0, 90.9, 58.5, 93.5),
        *(7.3, 6.8, 4.1, 4.9),
    ),
    driving(
        *("DINO ViT-B", "bdd100k.dino_vitb", 44.0, 90.9, 53.8, 92.7, 48.5, 91.7, 62.7, 94.2),
        *(17.4, 14.8, 12.1, 14.1),
    ),
    driving(
        *("CroCo v2 ViT-B", "bdd100k.croco_vitb", 16.3, 72.4, 26.5, 84.4, 18.2, 75.0, 28.9, 84.6),
        *(6.1, 5.8, 3.0, 3.8),
    ),
    driving(
        *("Midway ViT-B", "bdd100k.midway_vitb", 48.2, 91.6, 55.2, 93.1, 51.1, 92.1, 62.2, 94.0),
        *(7.0, 6.4, 4.1, 4.8),
    ),
)
MIDWAY_100 = walking(
    *("Midway ViT-S", "walking_tours.midway_vits", 13.1, 85.4, 33.4, 76.9, 7.7, 7.4, 5.2, 6.6)
)
TABLE_2 = (
    walking(
        *("PooDLe R50", "walking_tours.poodle_r50", 13.7, 85.4, 36.6, 77.9),
        note=f"at 512x1024; {RELEASED}",
    ),
    walking(
        *("iBOT ViT-S", "walking_tours.ibot_vits", None, None, 33.9, None),
        note="the paper quotes DoRA's",
    ),
    walking(
        *("MAE ViT-S", "walking_tours.mae_vits", 8.9, 81.5, 24.1, 71.4, 17.6, 16.4, 11.1, 11.8),
        note="the paper quotes PooDLe's segmentation",
    ),
    walking(
        *("VideoMAE ViT-S", "walking_tours.videomae_vits", 3.3, 67.9, 7.8, 55.6),
        *(15.9, 15.8, 7.0, 7.4),
    ),
    walking(
        *("DINO ViT-S", "walking_tours.dino_vits", 11.0, 83.0, 29.2, 74.7, 15.5, 14.0, 12.4, 13.8),
        note=RELEASED,
    ),
    walking(
        *("CroCo v2 ViT-S", "walking_tours.croco_vits", 11.3, 84.4, 32.0, 75.7),
        *(9.6, 9.1, 5.9, 6.4),
    ),
    walking(
        *("DoRA ViT-S", "walking_tours.dora_vits", 13.6, 85.7, 35.2, 77.7, 17.9, 13.3, 12.4, 12.4),
        note=RELEASED,
    ),
    MIDWAY_100,
)
TABLE_3 = (
    ablation("1 base", "table3.row1_base", 28.3, 6.2),
    ablation("2 latent dynamics", "table3.row2_latent_dynamics", 30.4, 4.4),
    ablation(
        "3 backward, multi-level", "table3.row3_backward_multi_level", 30.0, 5.0, note=UNCLEAR
    ),
    ablation(
        "4 multi-level, refinement", "table3.row4_multi_level_refinement", 30.4, 5.2, note=UNCLEAR
    ),
    ablation("5 all but gating", "table3.row5_no_gating", 31.1, 3.9),
    ablation("6 full", "table3.row6_full", 31.5, 4.1, note="5 seeds: +-0.06 mIoU, +-0.08 EPE"),
    ablation("7 no backward", "table3.row7_no_backward", 30.4, 3.7),
    ablation("8 no multi-level", "table3.row8_no_multi_level", 30.3, 5.2),
    ablation("9 no refinement", "table3.row9_no_refinement", 30.8, 5.1),
)
TABLE_4 = (
    MIDWAY_100,
    walking(
        *("Midway ViT-S, 300 epochs", "walking_tours.midway_vits_300", 14.8, 86.5, 36.9, 78.2),
        *(7.3, 6.9, 4.0, 5.1),
    ),
)
TABLE_5 = (
    ablation("full", "table3.row6_full", 31.5, 4.1),
    ablation("0.5x midway width", "table5.half_midway_width", 31.3, 6.7),
    ablation("2x midway width", "table5.double_midway_width", 31.0, 3.3),
    ablation("1-layer midway", "table5.midway_depth_1", 31.9, 6.9),
    ablation("2-layer midway", "table5.midway_depth_2", 31.2, 6.4),
    ablation("1-layer forward", "table5.forward_depth_1", 29.6, 5.0),
    ablation("2-layer forward", "table5.forward_depth_2", 30.2, 4.8),
)
TABLE_6 = tuple(
    Row(
        name=name,
        preset=f"walking_tours.{preset}",
        evaluations=(linear("ade20k-linear", preset),),
        numbers=numbers,
        note=note,
    )
    for name, preset, numbers, note in (
        ("PooDLe R50", "poodle_r50", (14.6, 59.0), f"at 512x1024; {RELEASED}"),
        ("MAE ViT-S", "mae_vits", (7.4, 55.1), ""),
        ("VideoMAE ViT-S", "videomae_vits", (0.8, 28.6), ""),
        ("DINO ViT-S", "dino_vits", (6.9, 48.2), "equals PooDLe's row of a ResNet-50"),
        ("CroCo v2 ViT-S", "croco_vits", (4.2, 48.7), ""),
        ("DoRA ViT-S", "dora_vits", (14.1, 63.5), RELEASED),
        ("Midway ViT-S", "midway_vits", (12.1, 61.3), ""),
    )
)
TABLE_7 = (
    frozen_flow("iBOT ViT-S", "bdd100k.ibot_vits", 20.5, 20.3, 13.9, 14.6),
    frozen_flow("DINO ViT-S", "bdd100k.dino_vits", 19.0, 17.5, 14.0, 13.5),
    frozen_flow("VideoMAE ViT-S", "bdd100k.videomae_vits", 20.0, 20.0, 11.6, 12.2),
    frozen_flow("CroCo v2 ViT-S", "bdd100k.croco_vits", 39.2, 39.2, 24.0, 23.9),
    frozen_flow("DoRA ViT-S", "bdd100k.dora_vits", 20.7, 20.6, 12.6, 13.3),
    encoder_only(18.8, 17.0, 12.5, 11.7, frozen=True),
    frozen_flow("Midway ViT-S", "bdd100k.midway_vits", 20.2, 19.3, 12.8, 12.6),
    frozen_flow("DINO ViT-B", "bdd100k.dino_vitb", 19.0, 17.4, 14.2, 13.2),
    frozen_flow("CroCo v2 ViT-B", "bdd100k.croco_vitb", 39.2, 39.2, 24.0, 24.1),
    frozen_flow("Midway ViT-B", "bdd100k.midway_vitb", 21.7, 20.2, 13.7, 12.9),
)
TABLES: dict[str, Sequence[Row]] = {
    f"table{number}": rows
    for number, rows in enumerate(
        (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7), start=1
    )
}
"""Rows of each table, in the paper's order."""
