"""A lineage as a page shows it: without places, a subtree only where it comes first, few of many raw files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manifest.identity import short
from manifest.lineage import RAW_SHOWN, Node


@dataclass(frozen=True)
class Branch:
    """An artifact or a raw file. repeated: what it was made from is shown above. folded: raw files left out."""

    kind: str
    name: str
    id: str
    state: str
    children: tuple[Branch, ...] = ()
    repeated: bool = False
    folded: int = 0

    @property
    def lines(self) -> list[str]:
        """The branch as Markdown list items."""
        problem = "" if self.state == "ok" else f" **{self.state}**"
        head = f"- {self.kind} **{self.name}** `{self.id}`{problem}{' (as above)' if self.repeated else ''}"
        below = [f"  {line}" for child in self.children for line in child.lines]
        return [head, *below, *([f"  - … and {self.folded:,} more raw files"] if self.folded else [])]


def branches(roots: Iterable[Node]) -> list[Branch]:
    """Trees as branches. What two trees share is shown in the first."""
    seen: set[tuple[str, str]] = set()
    return [_branch(root, seen) for root in roots]


def _branch(node: Node, seen: set[tuple[str, str]]) -> Branch:
    key = node.kind, node.id
    repeated = bool(node.children) and key in seen
    seen.add(key)
    shown = [] if repeated else _shown(node)
    return Branch(
        kind=node.kind,
        name=node.name,
        id=short(node.id),
        state=node.state,
        children=tuple(_branch(child, seen) for child in shown),
        repeated=repeated,
        folded=0 if repeated else len(node.children) - len(shown),
    )


def _shown(node: Node) -> list[Node]:
    """Its children; of more than a few sound raw files the first."""
    plain = [child for child in node.children if child.kind == "raw" and child.state == "ok"]
    hidden = {id(child) for child in plain[RAW_SHOWN:]} if len(plain) > RAW_SHOWN + 1 else set()
    return [child for child in node.children if id(child) not in hidden]
