from __future__ import annotations

from evalkit.tree import branches
from manifest.lineage import Node


def node(kind: str, name: str, *children: Node, state: str = "ok") -> Node:
    return Node(kind, name, f"{kind}-{name}", f"/somewhere/{name}", state, children)  # type: ignore[arg-type]


def test_what_two_trees_share_is_shown_in_the_first() -> None:
    mixture = node("mixture", "m", node("raw", "a"))
    again = node("mixture", "m", node("raw", "a"))
    first, second = branches([node("checkpoint", "1", mixture), node("checkpoint", "0", again)])
    assert [child.name for child in first.children[0].children] == ["a"]
    assert second.children[0].repeated
    assert second.children[0].children == ()


def test_of_many_sound_raw_files_a_few_are_shown_and_all_others_counted() -> None:
    raw = [node("raw", f"{i}") for i in range(10)]
    (tree,) = branches([node("documents", "d", *raw, node("raw", "lost", state="missing"))])
    assert [child.name for child in tree.children] == ["0", "1", "2", "lost"]
    assert tree.folded == 7
    assert tree.lines[-2:] == ["  - raw **lost** `raw-lost` **missing**", "  - … and 7 more raw files"]
