"""Build pretrained pair encoders from runs and third-party files."""

from functools import partial

from torch import Tensor

from midway.errors import MidwayError
from midway.models.pair_encoders.base import PairEncoder, PairEncoderSpec, recognise_pair
from midway.models.weights.check import check_tensors, meta_state
from midway.models.weights.files import WeightsFile
from midway.models.weights.sources import differing, read_source
from midway.models.weights.unwrap import unwrap


def build_pair_encoder(file: WeightsFile, *, untrained: bool = False) -> PairEncoder | None:
    """Build the pair encoder of a file, in evaluation mode; a run's method is not imported.

    Args:
        file: File that was read.
        untrained: If True, keep fresh weights, drawn from torch's generator.

    Returns:
        The network; None if the file has none, or a Midway network, which is opened as a whole.

    Raises:
        MidwayError: The tensors do not match it.

    """
    found, where = _described(file), str(file.path)
    if found is None:
        return None
    spec, tensors = found
    build = partial(spec.build, where=where)
    check_tensors(meta_state(build), tensors, where=where, what=f"its {spec.kind} pair encoder")
    pair_encoder = build()
    if not untrained:
        pair_encoder.load_state_dict(tensors)
    return pair_encoder.eval()


def start_pair_encoder(name: str, into: PairEncoder) -> None:
    """Load the pair encoder of a source, if it has one of the same kind.

    Args:
        name: As for `--network`.
        into: Network that receives the weights.

    Raises:
        MidwayError: There is no such source, or its pair encoder has other sizes.

    """
    file = read_source(name)
    found = None if file is None else build_pair_encoder(file)
    if found is None or found.kind != into.kind:
        return
    state = found.state_dict()
    if other := differing(state, into.state_dict()):
        raise MidwayError(
            f"{name}: its pair encoder has other sizes ({other[0]} differs); give one of the sizes "
            "of this experiment"
        )
    into.load_state_dict(state)


def _described(file: WeightsFile) -> tuple[PairEncoderSpec, dict[str, Tensor]] | None:
    """Return description and tensors of the pair encoder of a file."""
    if (spec := file.pair_encoder) is not None:
        names = [name for name in file.tensors if name.startswith(spec.prefix)]
        return spec, {name.removeprefix(spec.prefix): file.tensors[name] for name in names}
    if file.layout != "plain":
        return None
    where = str(file.path)
    found = unwrap(file.tensors, "teacher", where=where)
    try:
        return None if found is None else recognise_pair(found.tensors)
    except MidwayError as error:
        raise MidwayError(f"{where}: {error}") from None
