from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from manifest.checkpoint import Pace, Timeline
from manifest.cli import main
from manifest.identity import content_id
from manifest.order import OrderRecord, append
from manifest.schemas import schema

if TYPE_CHECKING:
    from tests.manifest.conftest import Builder

TEXT = "a line\r\nand another\n"
DOCUMENT = content_id("c4", TEXT)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def store(build: Builder) -> Builder:
    tokens = build.tokens("c4", {DOCUMENT: [1] * 8}, inputs={"raw": build.raw("a.jsonl", "raw")})
    mixture = build.mixture("demo", {"c4": tokens}, {"p": {"c4": 2}})
    streams = {"c4": (tokens.manifest.id, 1)}
    record = append(
        OrderRecord(seed=0, block_tokens=8), mixture=mixture.manifest.id, phase="p", draws={"c4": 2}, streams=streams
    )
    timeline = Timeline(order=record, paces=(Pace(seq_len=8, windows_per_step=1, first_step=0),))
    build.checkpoint("tiny", 1, timeline, [mixture])
    (build.scratch / "tokenizer").mkdir()
    (Path(build.store.uri) / "tokenizer").mkdir()
    return build


def test_show_prints_the_manifest_and_nothing_else(store: Builder, capsys: Capture) -> None:
    uri = store.store.where("mixtures/demo")
    assert main(["show", uri]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (Path(uri, "manifest.json").read_text(), "")


def test_verify_says_how_much_it_read_and_fails_on_a_flipped_bit(store: Builder, capsys: Capture) -> None:
    uri = store.store.where("mixtures/demo")
    assert main(["verify", uri]) == 0
    assert "all as its manifest says" in capsys.readouterr().out
    (file,) = Path(store.store.where("tokens/c4")).glob("*.bin")
    file.write_bytes(bytes(file.stat().st_size))
    assert main(["verify", uri]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "SHA-256" in err


def test_lineage_draws_a_tree_or_prints_it_as_json(store: Builder, capsys: Capture) -> None:
    uri = store.store.where("runs/tiny/checkpoints/00000001")
    assert main(["lineage", uri]) == 0
    drawn = [line.split(" ")[:-1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [" ".join(words[:-1]) for words in drawn] == [
        "└── mixture",
        "    ├── tokens",
        "    │   └── raw",
        "    └── tokenizer",
    ]
    assert main(["lineage", uri, "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["children"][0]["children"][0]["children"][0]["kind"] == "raw"


def test_lineage_warns_of_what_is_missing_and_with_verify_fails(store: Builder, capsys: Capture) -> None:
    uri = store.store.where("mixtures/demo")
    store.raw("a.jsonl", "RAW")
    assert main(["lineage", uri]) == 0
    assert capsys.readouterr().err == ""
    assert main(["lineage", uri, "--verify"]) == 2
    out, err = capsys.readouterr()
    assert "[changed: " in out
    assert "1 of its inputs are missing or changed" in err
    (store.scratch / "raw" / "a.jsonl").unlink()
    assert main(["lineage", uri]) == 0
    assert "raw/a.jsonl; restore them" in capsys.readouterr().err


def test_schema_is_that_of_a_kind_or_of_an_artifact(store: Builder, capsys: Capture) -> None:
    assert main(["schema", "mixture"]) == 0
    assert main(["schema", store.store.where("mixtures/demo")]) == 0
    assert capsys.readouterr().out == 2 * schema("mixture")
    assert main(["schema", store.store.where("tokens/c4")]) == 0
    assert capsys.readouterr().out == schema("artifact")
    assert main(["schema"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["artifact", "mixture", "checkpoint", "report"]


def test_exposure_answers_for_an_id_and_for_its_text(store: Builder, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "doc.txt").write_bytes(TEXT.encode())
    assert main(["exposure", store.store.uri, "--document", DOCUMENT]) == 0
    assert main(["exposure", store.store.uri, "--text", str(tmp_path / "doc.txt")]) == 0
    out = capsys.readouterr().out
    half = out[: len(out) // 2]
    assert out == 2 * half
    assert "in stream c4 (8 tokens) of mixture demo" in half
    assert "phase p of demo: steps 0–0, 1 windows, 8 tokens" in half


def test_exposure_as_json_gives_the_same_numbers(store: Builder, capsys: Capture) -> None:
    assert main(["exposure", store.store.uri, "--document", DOCUMENT, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["mixtures"][0]["streams"] == {"c4": 8}
    (checkpoint,) = answer["runs"][0]["checkpoints"]
    assert (checkpoint["step"], checkpoint["windows"], checkpoint["tokens"]) == (1, 1, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nowhere"], "has no manifest.json"),
        (["schema", "nokind"], "has no manifest.json"),
        (["exposure", "nowhere", "--document", "d"], "has no mixtures/ or runs/"),
        (["exposure", "nowhere", "--text", "nofile"], "nofile cannot be read as UTF-8 text"),
        (["show", "ftp://host/x"], "the scheme 'ftp' is unknown"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["exposure", "store"], ["bake"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize("command", ["show", "verify", "lineage", "schema", "exposure"])
def test_help_of_every_command_has_an_example(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example: manifest {command}" in capsys.readouterr().out


def test_a_reader_that_stops_early_is_no_reason_for_a_traceback() -> None:
    command = f"{sys.executable} -m manifest.cli schema | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stderr, len(done.stdout)) == ("", 10)
    assert done.returncode in (0, 141)  # 0: all was written before the reader stopped


def test_the_command_as_a_program_exits_with_the_code_of_its_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manifest.cli", "show", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
