"""Build networks and encoders from release files, runs, exports and converted weights."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from midway.config import from_json
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, EncoderSpec, recognise
from midway.models.encoders.timm import TimmEncoder
from midway.models.encoders.vit import VisionTransformer
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.weights.check import check_tensors, meta_state, shown
from midway.models.weights.files import FLOW, RUN_PREFIX, WeightsFile, read_weights
from midway.models.weights.layouts.beside import config_beside
from midway.models.weights.layouts.poodle import recognise_poodle
from midway.models.weights.layouts.recognise import Recognised, recognise_layout, summary
from midway.models.weights.release import ReleaseHints, release_sizes, to_release_name
from midway.models.weights.safe_pickle import named_tensors
from midway.models.weights.unwrap import unwrap

NO_HINTS = ReleaseHints()
_log = logging.getLogger(__name__)


def load(
    path: str | Path,
    *,
    encoder_heads: int | None = None,
    midway_heads: int | None = None,
    backward_heads: int | None = None,
    forward_heads: int | None = None,
    image_size: tuple[int, int] | None = None,
) -> MidwayNetwork:
    """Load the network of a release `.pth`, a run folder, a `.ckpt`, a `.safetensors` or a hub id.

    No code in the file is run. Sizes come from the file, and every tensor must match the network.
    The keywords override the arguments of a release file, where these are missing or wrong.

    Args:
        path: File or folder, a name of `midway list networks`, "owner/name" on the Hugging Face
            hub, or a web address.
        encoder_heads: Attention heads of the encoder; if None, from the file's `arch`.
        midway_heads: Attention heads of the midway path; if None, from the file, else 3 for
            published widths.
        backward_heads: Attention heads of the backward layers; if None, from the file, else 6 for
            published widths.
        forward_heads: Attention heads of the forward models; if None, from the file, else 6 for
            published widths.
        image_size: Height and width in pixels; if None, from the file, else square.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        UnknownHeadsError: A number of attention heads is unknown.
        MidwayError: There is no such file, it is not readable, or its tensors do not match.

    """
    hints = ReleaseHints(
        encoder_heads=encoder_heads,
        midway_heads=midway_heads,
        backward_heads=backward_heads,
        forward_heads=forward_heads,
        image_size=image_size,
    )
    return build_network(read_weights(path), hints)


def build_network(file: WeightsFile, hints: ReleaseHints = NO_HINTS) -> MidwayNetwork:
    """Build the Midway network of a file, in evaluation mode.

    Raises:
        UnknownHeadsError: A number of attention heads is unknown.
        MidwayError: Tensors are missing, unknown or of another shape; the message names them.

    """
    config, tensors = network_config(file, hints), _network_tensors(file)
    # Sizes of a header are compared first, as they may ask for any amount of memory.
    state = meta_state(lambda: MidwayNetwork(config))
    levels, is_release = config.dynamics.levels, file.layout == "release"
    in_file = {to_release_name(name, levels) if is_release else name: name for name in state}
    named = {name: state[own] for name, own in in_file.items()}
    check_tensors(named, tensors, where=str(file.path), what="the network")
    network = MidwayNetwork(config)
    network.load_state_dict({in_file[name]: tensor for name, tensor in tensors.items()})
    return network.eval()


def network_config(file: WeightsFile, hints: ReleaseHints = NO_HINTS) -> NetworkConfig:
    """Return the sizes of the Midway network of a file.

    Args:
        file: File that was read.
        hints: Overrides for a file in the release layout.

    Raises:
        UnknownHeadsError: A number of attention heads is in neither the file nor the hints.
        MidwayError: The file contains no Midway network, or its sizes are invalid.

    """
    where, sizes = str(file.path), file.sizes
    if file.layout == "release":
        sizes = release_sizes(file.tensors, file.args, hints, where=where)
    if sizes is None:
        raise MidwayError(_no_network(file))
    try:
        return from_json(NetworkConfig, sizes, where="its sizes")
    except MidwayError as error:
        raise MidwayError(f"{where}: {' '.join(str(error).split())}") from None


def build_encoder(
    file: WeightsFile, name: str, hints: ReleaseHints = NO_HINTS, *, untrained: bool = False
) -> Encoder:
    """Build an encoder of a file, in evaluation mode; a run's method is not imported.

    Args:
        file: File that was read.
        name: One of its encoders, such as "teacher"; ignored if there is only one.
        hints: Overrides for a release file; `encoder_heads` for a file without configuration.
        untrained: If True, keep fresh weights, drawn from torch's generator.

    Raises:
        MidwayError: There is no such encoder, or the tensors do not match it.

    """
    if file.has_network:
        sizes = network_config(file, hints)
        network = MidwayNetwork(sizes) if untrained else build_network(file, hints)
        return network.encoders[_chosen(file, network.encoders, name)].eval()
    spec, tensors = _described(file, name, hints)
    where, what = str(file.path), f"its {spec.kind}"
    hint = "; give models with more parts as timm:NAME"
    build = partial(spec.build, where=where)
    # A model of timm takes its sizes from its name, and cannot be built without memory.
    made = build() if spec.kind == TimmEncoder.kind else None
    state = meta_state(build) if made is None else made.state_dict()
    check_tensors(state, tensors, where=where, what=what, hint=hint)
    encoder = made or build()
    if not untrained:
        encoder.load_state_dict(tensors)
    return encoder.eval()


def _described(
    file: WeightsFile, name: str, hints: ReleaseHints
) -> tuple[EncoderSpec, dict[str, Tensor]]:
    """Return description and tensors of an encoder in a file without a Midway network."""
    if file.encoders:
        spec = file.encoders[_chosen(file, file.encoders, name)]
        return spec, _below(spec.prefix, file.tensors)
    if file.layout != "plain":
        raise MidwayError(
            f"{file.path}: describes no encoder; checkpoints of version 0.1 can be opened if they "
            "are of a Midway run"
        )
    return _of_others(file, name, hints)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """An encoder from a third-party file."""

    recognised: Recognised
    spec: EncoderSpec
    place: str
    """Part of the file and prefix of the names, such as "teacher.backbone"; may be empty."""
    others: tuple[str, ...] = ()
    """Places of other encoders in the file."""
    guessed_heads: bool = False
    """True if the number of attention heads was taken from the width."""


def open_foreign(file: WeightsFile, name: str, hints: ReleaseHints = NO_HINTS) -> Foreign:
    """Find an encoder in a third-party file; its sizes follow from names and shapes.

    Args:
        file: File in the layout "plain".
        name: Part to prefer, such as "teacher" or "student", where there are several encoders.
        hints: `encoder_heads`, where the width does not determine them.

    Raises:
        MidwayError: There is no encoder with known names, or not the one of this name.

    """
    where = str(file.path)
    if of_poodle := recognise_poodle(file.tensors, name, where=where):
        recognised, place = of_poodle
        if spec := recognise(recognised.tensors):
            return Foreign(recognised=recognised, spec=spec, place=place)
    found = unwrap(file.tensors, name, where=where)
    recognised = spec = heads = None
    if found is not None:
        beside = config_beside(file.path)
        stated = beside.pop("heads", None)
        heads = stated if hints.encoder_heads is None else hints.encoder_heads
        try:
            recognised = recognise_layout(found.tensors, found.outside, found.others)
            spec = recognise(recognised.tensors, heads=heads)
        except MidwayError as error:
            raise MidwayError(f"{where}: {error}") from None
        if spec is not None and spec.kind == VisionTransformer.kind:
            spec = replace(spec, config=spec.config | recognised.config | beside)
    if found is None or recognised is None or spec is None:
        raise MidwayError(
            f"{where}: neither a configuration in its header nor tensors of a known ViT or ResNet, "
            f"but {shown(file.tensors)}; give a file that midway, timm or transformers wrote"
        )
    place, *others = (each.rstrip(".") for each in (found.prefix, *found.others))
    return Foreign(
        recognised=recognised,
        spec=spec,
        place=place,
        others=tuple(others),
        guessed_heads=heads is None and "heads" in spec.config,
    )


def _of_others(
    file: WeightsFile, name: str, hints: ReleaseHints
) -> tuple[EncoderSpec, dict[str, Tensor]]:
    """Return an encoder from a third-party file, and log what was read, left out and assumed."""
    foreign = open_foreign(file, name, hints)
    recognised, choices = foreign.recognised, [foreign.recognised.layout]
    if foreign.place:
        others = shown(other or "the top level" for other in foreign.others)
        choices.append(
            f"the encoder is read from {shown([foreign.place])}{', not ' * bool(others)}{others}"
        )
    if recognised.left_out:
        choices.append(f"left out: {summary(recognised.left_out)}")
    if foreign.guessed_heads:
        choices.append(
            f"{foreign.spec.config['heads']} attention heads follow from its width; "
            "--encoder-heads overrides them"
        )
    if len(choices) > 1:
        _log.warning("%s: %s", file.path, "; ".join(choices))
    return foreign.spec, recognised.tensors


def _chosen(file: WeightsFile, names: Collection[str], name: str) -> str:
    if len(names) == 1:
        return next(iter(names))
    if name not in names:
        raise MidwayError(
            f"{file.path}: no encoder '{name}'; there are {', '.join(names)}: choose by --weights"
        )
    return name


def _network_tensors(file: WeightsFile) -> dict[str, Tensor]:
    if file.layout != "run":
        return named_tensors(file.tensors, where=str(file.path))
    tensors = named_tensors(file.tensors, where=f"{file.path}: model")
    others = [name for name in tensors if not name.startswith(RUN_PREFIX)]
    if others or not tensors:
        raise MidwayError(
            f"{file.path}: its model is not a Midway network, but has {shown(others)}; give a run "
            "of the method midway"
        )
    return _below(RUN_PREFIX, tensors)


def _no_network(file: WeightsFile) -> str:
    config = file.path.parent.parent / "config.json"
    if file.layout == "run" and not config.is_file():
        return f"{file.path}: a checkpoint needs the config.json of its run, in {config.parent}"
    if FLOW in file.header:
        return f"{file.path}: a flow network, which predicts flow only; give a Midway network"
    if file.encoders:
        names = ", ".join(file.encoders)
        return f"{file.path}: no Midway network, but encoders ({names}); give one of a Midway run"
    if file.layout == "plain":
        return (
            f"{file.path}: no Midway configuration in it, but {shown(file.tensors)}; use "
            "it as an encoder, where no dynamics are needed"
        )
    if file.layout == "run":
        return f"{config}: no method.network in it; is it a run's?"
    return f"{file.path}: no Midway configuration in its header; not written by midway"


def _below(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
