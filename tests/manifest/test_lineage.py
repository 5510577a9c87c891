from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from manifest.errors import NotAnArtifact
from manifest.lineage import as_json, lineage, nodes, render

if TYPE_CHECKING:
    from tests.manifest.conftest import Builder, Built


def diamond(build: Builder, raw_files: int = 2) -> Built:
    """raw → documents → signatures and (with them) deduped: documents are reached by two ways."""
    raw = {f"raw{index}": build.raw(f"{index}.jsonl", f"text {index}") for index in range(raw_files)}
    documents = build.artifact("documents/c4", inputs=raw)
    signatures = build.artifact("signatures/c4", inputs={"documents": documents})
    return build.artifact("deduped/c4", inputs={"documents": documents, "signatures": signatures})


def states(uri: str, **options: bool) -> dict[str, str]:
    return {f"{node.kind}/{node.name}": node.state for node in nodes(lineage(uri, **options))}


def test_the_tree_goes_down_to_the_raw_files(build: Builder) -> None:
    assert states(diamond(build).uri) == {
        "deduped/c4": "ok",
        "documents/documents": "ok",
        "signatures/signatures": "ok",
        "raw/raw0": "ok",
        "raw/raw1": "ok",
    }


def test_a_mixture_leads_to_each_of_its_streams_once(build: Builder) -> None:
    tokens = {name: build.tokens(name, {f"{name}/1": [1, 2, 3]}) for name in ("a", "b")}
    built = build.mixture("m", tokens, {"p": {"a": 1}})
    children = lineage(built.uri).children
    assert sorted((child.kind, child.name) for child in children) == [
        ("tokenizer", "tokenizer"),
        ("tokens", "a"),
        ("tokens", "b"),
    ]


def test_what_is_gone_is_missing_and_what_was_rebuilt_is_changed(build: Builder) -> None:
    built = diamond(build)
    shutil.rmtree(build.store.where("documents/c4"))
    shutil.rmtree(build.store.where("signatures/c4"))
    build.artifact("signatures/c4", {"part.bin": b"other"})
    assert states(built.uri) == {
        "deduped/c4": "ok",
        "documents/documents": "missing",
        "signatures/signatures": "changed",
    }


def test_a_tampered_manifest_is_changed(build: Builder) -> None:
    built = diamond(build)
    file = Path(build.store.where("documents/c4/manifest.json"))
    file.write_text(file.read_text().replace('"name": "c4"', '"name": "pile"'))
    assert states(built.uri)["documents/documents"] == "changed"


def test_a_raw_file_is_read_only_to_verify_it(build: Builder) -> None:
    built = diamond(build)
    build.raw("0.jsonl", "TEXT 0")
    (build.scratch / "raw" / "1.jsonl").unlink()
    assert (states(built.uri)["raw/raw0"], states(built.uri)["raw/raw1"]) == ("ok", "missing")
    assert states(built.uri, verify=True)["raw/raw0"] == "changed"


def test_the_drawing_shows_a_shared_subtree_once(build: Builder) -> None:
    lines = render(lineage(diamond(build).uri)).splitlines()
    shape = [line.split(" raw")[0].split(" documents")[0].split(" signatures")[0] for line in lines[1:]]
    assert shape == ["├──", "│   ├──", "│   └──", "└──", "    └──"]
    assert lines[-1].endswith("(as above)")
    assert sum("raw0" in line for line in lines) == 1


@pytest.mark.parametrize(("raw_files", "shown", "folded"), [(4, 4, 0), (5, 3, 2), (40, 3, 37)])
def test_many_raw_files_are_folded_unless_all_are_asked_for(
    build: Builder, raw_files: int, shown: int, folded: int
) -> None:
    tree = lineage(diamond(build, raw_files).uri)
    text = render(tree)
    assert text.count(" raw raw") == shown
    assert (f"… and {folded} more" in text) == (folded > 0)
    assert render(tree, every=True).count(" raw raw") == raw_files


def test_a_missing_raw_file_is_never_folded_away(build: Builder) -> None:
    built = diamond(build, 40)
    (build.scratch / "raw" / "33.jsonl").unlink()
    assert "raw33" in render(lineage(built.uri))
    assert f"[missing: {build.scratch}/raw/33.jsonl]" in render(lineage(built.uri))


def test_the_json_holds_every_node_and_repeats_no_subtree(build: Builder) -> None:
    tree = json.loads(json.dumps(as_json(lineage(diamond(build).uri))))
    documents, signatures = tree["children"]
    assert [child["name"] for child in documents["children"]] == ["raw0", "raw1"]
    (again,) = signatures["children"]
    assert (again["id"], again["repeated"], again["children"]) == (documents["id"], True, [])


def test_the_artifact_itself_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifact):
        lineage(tmp_path / "nowhere")
