"""Published networks and encoders with a name of their own here, and their licences."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishedNetwork:
    """Weights on the Hugging Face hub, or at a web address, with a short name."""

    about: str
    """Method, training data and sizes."""
    repo: str
    """Repository on the hub, or beginning of a web address."""
    file: str
    terms: str
    """Authors and licence, shown before the first download."""

    @property
    def is_on_the_web(self) -> bool:
        """True if the file is at a web address, not on the hub."""
        return self.repo.startswith("https://")


_AUTHORS_REPO = "agentic-learning-ai-lab/Midway-Network"
_AUTHORS_TERMS = (
    f"published by the authors of Midway Network ({_AUTHORS_REPO}); their code is under GPL-3.0, "
    "the terms of the weights are on that page"
)
_META = "https://dl.fbaipublicfiles.com"
_SIZES = {"s": "ViT-S", "b": "ViT-B", "l": "ViT-L"}
_GIANT = {"g": "ViT-g"}
_TIMM_SIZES = {"s": "small", "b": "base", "l": "large"}
_DINO_FILES = {
    "s16": "dino_deitsmall16",
    "s8": "dino_deitsmall8",
    "b16": "dino_vitbase16",
    "b8": "dino_vitbase8",
}


def _midway() -> dict[str, PublishedNetwork]:
    files = (
        ("midway-bdd-vits", "ViT-S/16, BDD100K, 300 epochs", "midway-bdd-vit-s-ep300.pth"),
        ("midway-bdd-vitb", "ViT-B/16, BDD100K, 300 epochs", "midway-bdd-vit-b-ep300.pth"),
        ("midway-wt-vits", "ViT-S/16, WT-Venice, 100 epochs", "midway-wt-venice-vit-s-ep100.pth"),
    )
    return {
        name: PublishedNetwork(about=about, repo=_AUTHORS_REPO, file=file, terms=_AUTHORS_TERMS)
        for name, about, file in files
    }


def _encoders() -> dict[str, PublishedNetwork]:
    found: dict[str, PublishedNetwork] = {}
    for size, file in _DINO_FILES.items():
        found[f"dino-vit{size}"] = PublishedNetwork(
            about=f"DINO, {_SIZES[size[0]]}/{size[1:]}, ImageNet-1k",
            repo=f"{_META}/dino",
            file=f"{file}_pretrain/{file}_pretrain.pth",
            terms="published by Caron et al., 2021 (Meta AI) under Apache-2.0",
        )
    for size in ("b", "l"):
        found[f"mae-vit{size}16"] = PublishedNetwork(
            about=f"MAE, {_SIZES[size]}/16, ImageNet-1k",
            repo=f"{_META}/mae/pretrain",
            file=f"mae_pretrain_vit_{_TIMM_SIZES[size]}.pth",
            terms="published by He et al., 2022 (Meta AI) under CC BY-NC 4.0",
        )
    for registers, ending in (("", ""), (" with registers", "-reg4")):
        for size in (*_SIZES, "g"):
            file = f"dinov2_vit{size}14"
            found[f"dinov2-vit{size}14{ending}"] = PublishedNetwork(
                about=f"DINOv2{registers}, {(_SIZES | _GIANT)[size]}/14, LVD-142M",
                repo=f"{_META}/dinov2",
                file=f"{file}/{file}{ending.replace('-', '_')}_pretrain.pth",
                terms="published by Oquab et al., 2023 (Meta AI) under Apache-2.0",
            )
    for size in _SIZES:
        found[f"dinov3-vit{size}16"] = PublishedNetwork(
            about=f"DINOv3, {_SIZES[size]}/16, LVD-1689M, converted by timm",
            repo=f"timm/vit_{_TIMM_SIZES[size]}_patch16_dinov3.lvd1689m",
            file="model.safetensors",
            terms="published by Simeoni et al., 2025 (Meta AI) under the DINOv3 License",
        )
        found[f"lingbot-vision-vit{size}16"] = PublishedNetwork(
            about=f"LingBot-Vision, {_SIZES[size]}/16",
            repo=f"robbyant/lingbot-vision-vit-{_TIMM_SIZES[size]}",
            file="model.pt",
            terms="published by Robbyant, 2026, under Apache-2.0",
        )
    for size in ("b", "l"):
        found[f"vjepa2.1-vit{size}16"] = PublishedNetwork(
            about=f"V-JEPA 2.1, {_SIZES[size]}/16, distilled from ViT-G, for images",
            repo=f"{_META}/vjepa2",
            file=f"vjepa2_1_vit{size}_dist_vitG_384.pt",
            terms="published by Mur-Labadia et al., 2026 (Meta AI); code under MIT",
        )
    return found


PUBLISHED = _midway() | _encoders()
"""Weights by their short names."""
