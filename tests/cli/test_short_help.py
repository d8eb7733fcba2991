"""Help of one screen: the options that are set most, under the names that are parsed."""

import re
from collections.abc import Sequence

import pytest

from midway.cli import main
from midway.evals import flow_finetune, knn_segmentation, segmentation
from midway.experiments.base import experiments

EVALUATIONS = {
    "segmentation": segmentation.PROTOCOLS,
    "flow_finetune": flow_finetune.PROTOCOLS,
    "knn_segmentation": knn_segmentation.PROTOCOLS,
}
COMMANDS = [
    *(["train", name] for name in experiments()),
    *(["eval", name, "--protocol", each] for name in EVALUATIONS for each in EVALUATIONS[name]),
    *(["eval", name] for name in ("flow", "correspondence", "latents", "tracking", "propagation")),
]


def help_of(words: Sequence[str], flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main([*words, flag])
    assert not end.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_on_a_screen_with_data_run_and_optim_first(words, capsys):
    lines = help_of(words, "--help", capsys).splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 120
    sections = [line[:-1] for line in lines if re.fullmatch("[a-z_]*:", line)]
    assert sections[0] == "data" or "data" not in sections
    if "run" in sections:
        assert sections[:3] == ["data", "run", "optim"]
    assert "--help-all" in lines[-1]


@pytest.mark.parametrize(
    "words",
    [
        ["train", "camvid.midway_tiny"],
        ["eval", "segmentation", "--protocol", "wt-sem-upernet"],
        ["eval", "flow_finetune", "--protocol", "paper"],
        ["eval", "knn_segmentation", "--protocol", "camvid"],
        ["eval", "tracking"],
    ],
    ids=" ".join,
)
def test_every_option_shown_is_among_all_options(words, capsys):
    flags = set(re.findall(r"^  --(\S+)", help_of(words, "--help", capsys), re.MULTILINE))
    full = help_of(words, "--help-all", capsys)
    assert flags
    for flag in flags:
        assert f"--{flag.replace('[no-]', '')} " in full.replace(",", " ")


def test_an_experiment_is_described_by_its_docstring_and_that_of_its_table(capsys):
    own = help_of(["train", "bdd100k.midway_vits"], "--help", capsys)
    assert re.search("Command: .*\nCost: .*\nExpect", own)
    row = help_of(["train", "table3.row6_full"], "--help", capsys)
    assert "The full model" in row
    assert "Command: midway train table3.row6_full" in row
