import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from midway.cli import COMMANDS, main
from midway.methods.mae import Mae
from midway.registry import available
from tests.data.video.made_videos import write_frames


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert not end.value.code
    assert "usage: midway" in capsys.readouterr().out


def _fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error of a command that ends with 2."""
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("midway: ")
    return printed.err


def test_an_unknown_command_is_an_error_that_lists_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = _fails(["trian"], capsys)
    assert f"did you mean train? there are {', '.join(COMMANDS)}" in line
    assert "did you mean" not in _fails(["xyz"], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info"], "missing NETWORK (Run folder, "),
        (["info", "no_such_file.pth"], "no_such_file.pth: no such file or folder"),
        (["info", "x.pth", "--encoder-haeds", "3"], "did you mean --encoder-heads?"),
        (["export", "no_such_file.pth", "out.safetensors"], "no such file or folder"),
    ],
)
def test_wrong_words_are_an_error_of_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _fails(words, capsys)


def test_with_json_an_error_is_the_last_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "no_such_file.pth", "--json"]) == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert "no such file" in json.loads(last)["error"]


def test_the_version_is_shown_with_that_of_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    shown = capsys.readouterr().out
    assert re.fullmatch(r"midway \d+\.\d+\.\d+, torch 2\.\S+\n", shown)


def test_list_describes_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in available("midway.methods"))
    assert "87.3 G multiply-adds (table 9: 90.8), 982 MB" in shown
    assert "parameters: 21.6 M in the encoder, 7.3 M in heads" in shown
    assert "Table 9 also counts tokens that nothing reads" in shown


def test_list_shows_a_method_that_states_no_costs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mae, "about", None)
    assert main(["list", "methods"]) == 0
    assert re.search(r"^mae +its file states no paper", capsys.readouterr().out, re.MULTILINE)


def test_list_names_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = json.loads(lines[-1])["experiments"]
    for name in (
        "bdd100k.midway_vits",
        "bdd100k.midway_vitb",
        "walking_tours.midway_vits",
        "walking_tours.midway_vits_300",
        "camvid.midway_tiny",
        "synthetic.midway_tiny",
        *(f"table3.row{row}" for row in range(1, 10)),
    ):
        assert any(found.startswith(name) for found in names), name
    assert sum(name.startswith("table5.") for name in names) == 6
    assert len(lines) == len(names) + 1


def test_a_network_goes_through_export_and_info_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from midway.models.midway import MidwayNetwork
    from midway.models.weights.save import save
    from tests.models.networks import tiny

    save(MidwayNetwork(tiny()), tmp_path / "net.safetensors")
    words = [str(tmp_path / "net.safetensors"), str(tmp_path / "net.pth")]
    assert main(["export", *words]) == 0
    assert main(["info", words[0], "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert main(["info", words[1], "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    second = json.loads(printed[-1])
    assert second["parameters"] == first["parameters"]
    assert second["config"]["encoder"]["heads"] is None
    assert "an unknown number of heads" in printed[-3]
    assert main(["info", words[1], "--encoder-heads", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["config"] == first["config"]


def test_info_reads_a_file_once_though_heads_are_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from midway.models.midway import MidwayNetwork
    from midway.models.weights.save import save
    from tests.models.networks import tiny

    path, read, torch_load = tmp_path / "net.pth", [], torch.load
    save(MidwayNetwork(tiny()), path)
    contents = torch.load(path, weights_only=True)
    del contents["args"]
    torch.save(contents, path)
    monkeypatch.setattr(torch, "load", lambda *a, **k: (read.append(a), torch_load(*a, **k))[1])
    assert main(["info", str(path), "--forward-heads", "4", "--json"]) == 0
    config = json.loads(capsys.readouterr().out.splitlines()[-1])["config"]
    assert len(read) == 1
    assert config["encoder"]["heads"] is config["dynamics"]["backward_heads"] is None
    assert config["dynamics"]["forward_heads"] == 4


def test_the_encoder_of_a_network_is_exported_and_described_by_info(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from midway.models.midway import MidwayNetwork
    from midway.models.weights.save import save
    from tests.models.networks import tiny

    net, alone = str(tmp_path / "net.safetensors"), str(tmp_path / "encoder.safetensors")
    save(MidwayNetwork(tiny()), Path(net))
    assert main(["export", net, alone, "--weights", "teacher"]) == 0
    assert main(["info", alone, "--json"]) == 0
    *_, printed, last = capsys.readouterr().out.splitlines()
    assert printed == "  encoder: vit, 4 levels, width 24, stride 8, 2 heads, 32x32 pixels"
    values = json.loads(last)
    assert values["kind"] == "encoder"
    assert values["encoders"]["encoder"]["kind"] == "vit"
    assert values["parameters"].keys() == {"encoder"}
    again = str(tmp_path / "again.safetensors")
    assert main(["export", alone, again]) == 0
    assert Path(again).read_bytes() == Path(alone).read_bytes()
    capsys.readouterr()
    message = _fails(["export", net, str(tmp_path / "x.pth"), "--weights", "best"], capsys)
    assert "no encoder 'best'; there are student, teacher" in message
    message = _fails(["export", alone, str(tmp_path / "x.pth")], capsys)
    assert "the release layout is for whole networks" in message


def test_info_tells_of_what_is_in_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "random:resnet", "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:3] == [
        "  encoder     23.5 M parameters",
        "  encoder: resnet, 4 levels, width 2048, stride 32",
    ]
    assert json.loads(printed[-1])["parameters"] == {"encoder": 23_508_032}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "latents", "--run", "RUN"], "--run: is now --network; use that"),
        (["eval", "flow", "--run=RUN"], "--run: is now --network; use that"),
        (
            ["eval", "segmentation", "--protocol", "camvid-linear", "--run", "RUN"],
            "--run: is now --network",
        ),
        (
            ["eval", "flow_finetune", "--protocol", "paper", "--start.network", "RUN"],
            "--start.network: is now --network",
        ),
        (["flow", "a.png", "b.png", "-o", "x.flo", "--run", "RUN"], "--run: is now --network"),
        (["track", "a.mp4", "--flow.run", "RUN"], "--flow.run: is now --flow.network"),
        (["perturb", "a.png", "b.png", "--run", "RUN"], "--run: is now --network"),
    ],
)
def test_old_spellings_are_an_error_that_names_the_new_one(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _fails(words, capsys)


def _command_that(monkeypatch: pytest.MonkeyPatch, result: object) -> None:
    """Let `midway list` give a result, or raise it."""

    def command(_words: list[str]) -> object:
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr("midway.cli.list.main", command)


def test_an_error_of_the_system_is_printed_with_file_and_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _command_that(monkeypatch, PermissionError(13, "Permission denied", "some/file"))
    assert _fails(["list"], capsys) == "midway: some/file: Permission denied\n"
    assert main(["list", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"error": "some/file: Permission denied"}


def test_a_mistake_in_the_package_is_one_line_with_a_way_to_report_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _command_that(monkeypatch, KeyError("no such\nthing"))
    assert main(["list", "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("midway: list: failed unexpectedly with KeyError (")
    assert printed.err.endswith("report it with the traceback of MIDWAY_TRACEBACK=1\n")
    assert printed.err.count("\n") == 1
    assert "KeyError" in json.loads(printed.out)["error"]
    monkeypatch.setenv("MIDWAY_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["list"])


def test_memory_that_does_not_suffice_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        _command_that(monkeypatch, error)
        assert "list: not enough memory (" in _fails(["list"], capsys)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output_is_one_line() -> None:
    command = [sys.executable, "-m", "midway.cli", "list"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert "No space left on device; free some space" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\n\x1b[2J\x9b.pth", r"a\n\x1b[2J\x9b.pth: no such file"),
        (b"caf\xe9.pth".decode(errors="surrogateescape"), r"caf\xe9.pth: no such file"),
        ("gpj.\u202ehtp.pth", r"gpj.\u202ehtp.pth: no such file"),
    ],
)
def test_names_are_escaped_where_they_are_printed(
    name: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown in _fails(["info", name], capsys)


def test_warnings_are_one_line_each_and_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(_words: list[str]) -> None:
        logging.getLogger("midway.data").warning("%s: is\nodd", "a\x1b[2J.mp4")

    monkeypatch.setattr("midway.cli.list.main", command)
    for _ in range(2):
        assert main(["list"]) == 0
        assert capsys.readouterr().err == r"a\x1b[2J.mp4: is\nodd" + "\n"


def test_an_interruption_is_130_and_printed_as_json_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _command_that(monkeypatch, KeyboardInterrupt())
    assert main(["list", "--json"]) == 130
    assert json.loads(capsys.readouterr().out) == {"error": "interrupted"}


def test_sigterm_ends_a_command_as_an_interruption_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(_words: list[str]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr("midway.cli.list.main", command)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "midway: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_command_chooses_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _command_that(monkeypatch, {"steps": 3, "exit_code": 3})
    assert main(["list", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == {"steps": 3}


def test_a_process_that_returns_nothing_prints_no_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _command_that(monkeypatch, None)
    assert main(["list", "--json"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [["list"], ["--help"], ["list", "--help"]])
def test_a_reader_that_has_gone_is_no_traceback(words: list[str]) -> None:
    command = [sys.executable, "-m", "midway.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_export_overwrites_only_with_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.pth").write_text("precious")
    message = _fails(["export", "any.pth", str(tmp_path / "net.pth")], capsys)
    assert "--overwrite" in message
    assert (tmp_path / "net.pth").read_text() == "precious"


def test_a_benchmark_prints_a_table_and_one_json_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frames(tmp_path, [f"{number}.png" for number in range(60)])
    words = ["--short-sides", "--batch-size", "1", "--json"]
    assert main(["bench", "data", str(tmp_path), *words]) == 0
    *printed, last = capsys.readouterr().out.splitlines()
    assert any("Pillow" in line for line in printed)
    (layout,) = json.loads(last)["layouts"]
    assert layout["limit"] in ("decode", "transfer", "views")
    assert "midway bench data" in _fails(["bench"], capsys)


def _spins(**variables: str) -> int:
    """Number of spins of a waiting thread that OpenMP reports when a command imports torch."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-m", "midway.cli", "list"],
        capture_output=True,
        text=True,
        check=True,
        env=given | {"OMP_DISPLAY_ENV": "VERBOSE"} | variables,
    )
    found = re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if found is None:
        pytest.skip("torch has another OpenMP than GNU's")
    return int(found[1])


def test_threads_wait_without_spinning_unless_the_environment_says_otherwise() -> None:
    assert _spins() == 0
    assert _spins(OMP_WAIT_POLICY="ACTIVE") > 0
    assert _spins(GOMP_SPINCOUNT="1000") == 1000
