import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from midway.config import from_json, read_json, to_json
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class Inner:
    lr: float = 1e-3
    clip: Literal["global", "none"] = "global"
    gap_seconds: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise MidwayError("lr must be positive")


@dataclass(frozen=True, kw_only=True)
class Outer:
    root: Path = Path("data")
    steps: int = 10
    levels: tuple[int, ...] = (3, 6, 9)
    decay: float | Literal["scheduled"] = 0.1
    inner: Inner = field(default_factory=Inner)


def test_a_configuration_survives_json() -> None:
    config = Outer(root=Path("a/b"), decay="scheduled", inner=Inner(lr=1e-9, clip="none"))
    text = json.dumps(to_json(config))
    assert from_json(Outer, json.loads(text), where="test") == config


def test_left_out_fields_take_their_defaults() -> None:
    assert from_json(Outer, {"inner": {"lr": 1}}, where="test") == Outer(inner=Inner(lr=1.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 1}, "run.json: no field 'stepz'; did you mean 'steps'"),
        ({"zzz": 1}, "there are root, steps"),
        ({"inner": {"lrr": 1}}, "run.json: inner: no field 'lrr'; did you mean 'lr'"),
        ({"steps": "many"}, "steps = 'many': "),
        ({"steps": 1.5}, "steps = 1.5: "),
        ({"inner": {"clip": "globl"}}, "clip = 'globl': "),
        ({"inner": {"gap_seconds": [1]}}, "gap_seconds = "),
        ({"inner": 3}, "inner = 3: "),
        ({"inner": {"lr": -1}}, "lr must be positive"),
    ],
)
def test_wrong_keys_and_values_are_named_in_one_line(values: dict, message: str) -> None:
    with pytest.raises(MidwayError) as caught:
        from_json(Outer, values, where="run.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_without_a_default_is_named() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        folder: Path

    with pytest.raises(MidwayError, match=r"run\.json: 'folder' is missing"):
        from_json(Needy, {}, where="run.json")


@pytest.mark.parametrize("content", [None, "", "[1, 2]", "{half"])
def test_files_that_hold_no_json_object_are_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(MidwayError, match=r"config\.json") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)
