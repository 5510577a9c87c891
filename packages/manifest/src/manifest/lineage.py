"""What an artifact was made from, back to the raw files.

    report ──► checkpoint ──► mixture ──► tokens ──► deduped ──► documents ──► raw files

The inputs of each manifest are followed by their URIs, and what is found there is held against the id that was
written down: `ok`, `missing` (nothing there, or no way to it), or `changed` (what it was made from is not known).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from manifest.artifact import locate, read_manifest, resolve
from manifest.errors import ArtifactError, InputError, NotAnArtifact
from manifest.identity import short
from manifest.mixture import Mixture
from manifest.record import Manifest, Reference

State = Literal["ok", "missing", "changed"]

BYTES = frozenset({"raw", "model", "tokenizer"})
"""Kinds that need not be artifacts: a file, or a directory that another program wrote."""

RAW_SHOWN = 3


@dataclass(frozen=True)
class Node:
    """An artifact or a raw file, and what it was made from. Equal subtrees are one object."""

    kind: str
    name: str
    id: str
    uri: str
    state: State
    children: tuple[Node, ...] = ()


def lineage(uri: str | Path, *, verify: bool = False) -> Node:
    """The tree of an artifact. With `verify`, raw files are read and hashed; else they only have to exist.

    Raises as `read_manifest` does, for the artifact itself and not for what it was made from.
    """
    where, manifest = read_manifest(uri)
    children = _children(where, manifest, {}, verify)
    return Node(manifest.kind, manifest.name, manifest.id, where, "ok", children)


def references(manifest: Manifest) -> list[Reference]:
    """Everything that a manifest refers to, each once: its inputs, and what a mixture names besides."""
    inputs = list(manifest.inputs.values())
    known = {reference.id for reference in inputs}
    named = list(_named_by(manifest)) if isinstance(manifest, Mixture) else []
    return inputs + [reference for reference in named if reference.id not in known]


def _named_by(mixture: Mixture) -> Iterator[Reference]:
    for name, stream in mixture.streams.items():
        yield Reference(kind="tokens", name=name, id=stream.id, uri=stream.uri)
    if mixture.heldout is not None:
        yield mixture.heldout
    tokenizer = mixture.tokenizer
    if tokenizer.uri not in {reference.uri for reference in mixture.inputs.values()}:  # by digest, not by id
        yield Reference(kind="tokenizer", name="tokenizer", id=tokenizer.digest, uri=tokenizer.uri)


Seen = dict[tuple[str, str], Node]


def _children(base: str, manifest: Manifest, seen: Seen, verify: bool) -> tuple[Node, ...]:
    return tuple(_node(base, reference, seen, verify) for reference in references(manifest))


def _node(base: str, reference: Reference, seen: Seen, verify: bool) -> Node:
    uri = resolve(base, reference.uri)
    key = uri, reference.id
    if key not in seen:
        state, children = _look(uri, reference, seen, verify)
        seen[key] = Node(reference.kind, reference.name, reference.id, uri, state, children)
    return seen[key]


def _look(uri: str, reference: Reference, seen: Seen, verify: bool) -> tuple[State, tuple[Node, ...]]:
    try:
        if reference.kind == "raw":
            return _raw_state(uri, reference.id, verify), ()
        _, manifest = read_manifest(uri)
    except NotAnArtifact:
        store, path = locate(uri)
        return ("ok" if reference.kind in BYTES and store.exists(path) else "missing"), ()
    except ArtifactError:
        return "changed", ()
    except InputError:  # a scheme that is not read here, a bucket that is gone
        return "missing", ()
    if manifest.id != reference.id:
        return "changed", ()
    return "ok", _children(uri, manifest, seen, verify)


def _raw_state(uri: str, expected: str, verify: bool) -> State:
    store, path = locate(uri)
    if not store.exists(path):
        return "missing"
    return "changed" if verify and store.sha256(path) != expected else "ok"


def nodes(node: Node) -> Iterator[Node]:
    """Every node of a tree, each once, parents first."""
    done: set[int] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if id(current) not in done:
            done.add(id(current))
            yield current
            waiting.extend(reversed(current.children))


def as_json(node: Node) -> dict[str, Any]:
    """The tree for `json.dumps`. A subtree that was given before is `repeated` and has no children."""
    return _as_json(node, set())


def _as_json(node: Node, done: set[int]) -> dict[str, Any]:
    fields = {key: getattr(node, key) for key in ("kind", "name", "id", "uri", "state")}
    if id(node) in done and node.children:
        return {**fields, "repeated": True, "children": []}
    done.add(id(node))
    return {**fields, "children": [_as_json(child, done) for child in node.children]}


def render(node: Node, *, every: bool = False) -> str:
    """The tree as text: a subtree only where it comes first, and of many sound raw files only a few.

    every: show all raw files.
    """
    return "\n".join([f"{_title(node)}  {node.uri}", *_branches(node, every, set())])


def _branches(node: Node, every: bool, done: set[int]) -> Iterator[str]:
    done.add(id(node))
    shown, folded = (list(node.children), 0) if every else _fold(node.children)
    for index, child in enumerate(shown):
        last = index == len(shown) - 1 and not folded
        known = id(child) in done and bool(child.children)
        yield ("└── " if last else "├── ") + _title(child) + ("  (as above)" if known else "")
        if not known:
            yield from (("    " if last else "│   ") + line for line in _branches(child, every, done))
    if folded:
        yield f"└── … and {folded} more"


def _fold(children: tuple[Node, ...]) -> tuple[list[Node], int]:
    """The children to show, and how many more sound raw files there are."""
    plain = [child for child in children if child.kind == "raw" and child.state == "ok"]
    hidden = {id(child) for child in plain[RAW_SHOWN:]} if len(plain) > RAW_SHOWN + 1 else set()
    return [child for child in children if id(child) not in hidden], len(hidden)


def _title(node: Node) -> str:
    problem = "" if node.state == "ok" else f"  [{node.state}: {node.uri}]"
    return f"{node.kind} {node.name} {short(node.id)}{problem}"
