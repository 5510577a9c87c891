"""Out and in again, over all switches: the same shape, and the same numbers bit for bit where none is folded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.trainer.huggingface.models import VOCAB, converted, every_shape, random_decoder, tensors, write

from trainer.huggingface import fold
from trainer.huggingface.names import entries, join, sizes, split
from trainer.huggingface.read import read_hf


def test_every_tensor_comes_back_bit_for_bit_from_every_family() -> None:
    families = set()
    for wanted in every_shape():
        decoder = random_decoder(wanted)
        weights = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
        made = converted(decoder)
        families.add(made.family.architecture)
        names, back = made.family.names, {}
        for entry in entries(names, wanted):
            theirs = join(names, wanted, entry, [weights[name] for name in entry.ours])
            back |= dict(zip(entry.ours, split(names, wanted, entry, theirs), strict=True))
        assert back.keys() == weights.keys() == sizes(wanted).keys()
        for name, value in back.items():
            rows = VOCAB if name in ("embedding.weight", "unembedding.weight") else len(value)
            assert torch.equal(value[:rows], weights[name][:rows]), (name, wanted)
            assert not value[rows:].any()
    assert len(families) == 7


def test_folded_weights_have_the_same_logits_without_multipliers() -> None:
    tokens = torch.randint(0, VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    for wanted in every_shape():
        if wanted.architecture.mup is None:
            continue
        decoder = random_decoder(wanted)
        plain = random_decoder(fold.without_mup(wanted))
        plain.load_state_dict({n: fold.folded(wanted, n, p.detach()) for n, p in decoder.named_parameters()})
        with torch.no_grad():
            torch.testing.assert_close(plain(tokens), decoder(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("index", range(0, 256, 9))
def test_a_directory_is_read_as_the_decoder_that_it_was_made_from(index: int, tmp_path: Path) -> None:
    wanted = every_shape()[index]
    decoder = random_decoder(wanted)
    made = converted(decoder)
    write(tmp_path / "model", decoder, made)
    read = read_hf(tmp_path / "model")
    folds = wanted.architecture.mup is not None and not made.family.multiplies
    assert read.shape == (fold.without_mup(wanted) if folds else wanted)
    again = read.decoder()
    # Written once more, it is the same directory.
    assert converted(again).config() == made.config()
    for name, value in tensors(again, converted(again)).items():
        assert torch.equal(value, tensors(decoder, made)[name]), name
