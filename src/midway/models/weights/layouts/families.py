"""Published families of vision transformers: their authors and the licences of their weights."""

from dataclasses import dataclass

UNKNOWN = "not stated in the file"


@dataclass(frozen=True, kw_only=True)
class Family:
    """Pretraining method whose checkpoints share a key layout."""

    name: str
    makers: str
    """Authors of the published weights, and others with the same layout."""
    licence: str
    """Licence of the published weights; a file may come from elsewhere."""


PLAIN = Family(name="ResNet or other encoder", makers=UNKNOWN, licence=UNKNOWN)
BACKBONE = Family(
    name="ViT backbone",
    makers=f"{UNKNOWN}; backbones of DINO, iBOT and DoRA have these names",
    licence=f"{UNKNOWN}; DINO and iBOT: Apache-2.0, DoRA: none",
)
DINO = Family(
    name="DINO",
    makers="Caron et al., 2021 (Meta AI), or DoRA (Venkataramanan et al., 2024), alike in layout",
    licence="Apache-2.0 (DINO); none stated (DoRA)",
)
IBOT = Family(name="iBOT", makers="Zhou et al., 2022 (ByteDance)", licence="Apache-2.0")
MAE = Family(name="MAE", makers="He et al., 2022 (Meta AI)", licence="CC BY-NC 4.0")
VIDEOMAE = Family(name="VideoMAE", makers="Tong et al., 2022 (MCG-NJU)", licence="CC BY-NC 4.0")
CROCO = Family(
    name="CroCo v2", makers="Weinzaepfel et al., 2023 (Naver)", licence="CC BY-NC-SA 4.0"
)
DINOV2 = Family(name="DINOv2", makers="Oquab et al., 2023 (Meta AI)", licence="Apache-2.0")
DINOV3 = Family(
    name="DINOv3",
    makers="Simeoni et al., 2025 (Meta AI), or LingBot-Vision (Robbyant, 2026), alike in layout",
    licence="DINOv3 License (DINOv3); Apache-2.0 (LingBot-Vision)",
)
POODLE = Family(name="PooDLe", makers="Wang et al., 2025 (NYU)", licence="none stated")
VJEPA = Family(
    name="V-JEPA 2.1",
    makers="Mur-Labadia et al., 2026 (Meta AI)",
    licence="MIT (code of its repository; the weights state none of their own)",
)
