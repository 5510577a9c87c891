"""dataproc card: what a mixture is made of, as a page."""

from __future__ import annotations

import argparse

from dataproc.commands.flags import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    card = commands.add_parser(
        "card",
        help="the data card of a mixture: a page, Markdown and Croissant metadata",
        description="Writes the card into the mixture's store, under cards/, and prints its path. `dataproc build` "
        "does so by itself; this is for mixtures that were built before, or moved.",
        epilog="example: dataproc card store/mixtures/demo-9f2c0e11d3aa",
    )
    card.add_argument("mixture", metavar="MIXTURE", help="a mixture")
    card.set_defaults(run=_card)


def _card(arguments: argparse.Namespace) -> None:
    from dataproc.card.stage import card_of
    from dataproc.stage import Build
    from dataproc.workers import Serial
    from manifest.artifact import Opened, open_artifact, resolve
    from manifest.store import open_store

    mixture = open_artifact(arguments.mixture, kind="mixture")
    made = card_of(mixture, Build(open_store(resolve(mixture.uri, "../..")), Serial()))
    assert isinstance(made, Opened)
    print(made.uri)
