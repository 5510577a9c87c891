"""The oracle takes a rearranged row apart again, knowing the format only, and compares texts and bytes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from manifest.mixture import FimTokens
from trainer.data.fim import COUNTS, Fim, draw, split, thirds

END = 0
MARK = FimTokens(prefix=1, middle=2, suffix=3, pad=4)
MARKS = {MARK.prefix, MARK.middle, MARK.suffix, MARK.pad}

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab \n東é🎉\N{REPLACEMENT CHARACTER}"), max_size=30
)
SPELLED = st.sampled_from(["<fim_prefix>", "a<fim_middle>b", "<|endoftext|>", "<fim_pad> <fim_suffix>"])
DOCUMENTS = st.lists(TEXTS | SPELLED, min_size=1, max_size=6)


def fim(encoder: Tokenizer, rate: float = 1.0) -> Fim:
    return Fim(encoder, MARK, end_of_text=END, rate=rate)


def encoded(encoder: Tokenizer, documents: list[str]) -> list[int]:
    ids: list[int] = []
    for document in documents:
        ids += [*encoder.encode(document, add_special_tokens=False).ids, END]
    return ids[:-1]


def undo(segment: list[int]) -> tuple[str, list[int]]:
    """The form of a segment and its tokens in their first order."""
    if not segment or segment[0] != MARK.prefix:
        return "plain", segment
    suffix, middle = segment.index(MARK.suffix), segment.index(MARK.middle)
    assert suffix < middle
    assert not MARKS & {*segment[1:suffix], *segment[suffix + 1 : middle], *segment[middle + 1 :]}
    if suffix == 1:  # and nothing before it: suffix first
        return "suffix first", segment[middle + 1 :] + segment[suffix + 1 : middle]
    return "prefix first", segment[1:suffix] + segment[middle + 1 :] + segment[suffix + 1 : middle]


def as_bytes(encoder: Tokenizer, ids: list[int]) -> bytes:
    """The bytes that tokens of a byte-level vocabulary stand for."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's table
    table = {chr(b): b for b in printable}
    table |= {chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in printable)}
    return bytes(table[character] for i in ids for character in encoder.id_to_token(i))


def window(ids: list[int], room: int = 0) -> np.ndarray:
    """Tokens as a window; `room` more of end-of-text, so that what is added is not cut off."""
    return np.array(ids + [END] * room, np.uint16)


@given(documents=DOCUMENTS, key=st.text(max_size=5))
@settings(deadline=None)
def test_what_was_rearranged_can_be_put_back(encoder: Tokenizer, documents: list[str], key: str) -> None:
    ids = encoded(encoder, documents)
    made = fim(encoder).rearrange(window(ids, room=60), key)
    counts = dict(zip(COUNTS, made.counts, strict=True))
    found = [undo(segment) for segment in split(made.tokens.tolist(), END)]
    assert [encoder.decode(tokens) for _, tokens in found][: len(documents)] == documents
    assert [as_bytes(encoder, tokens) for _, tokens in found][: len(documents)] == [d.encode() for d in documents]
    assert counts["segments"] == sum(map(bool, documents)) == counts["rearranged"]
    assert counts["kept"] == counts["padding"] == 0
    assert sum(form != "plain" for form, _ in found) == counts["rearranged"]


@given(document=st.text(st.sampled_from("aé東🎉\N{REPLACEMENT CHARACTER} "), max_size=12), data=st.data())
@settings(deadline=None)
def test_a_window_that_cuts_characters_loses_no_byte(encoder: Tokenizer, document: str, data: st.DataObject) -> None:
    ids = encoded(encoder, [document])
    first = data.draw(st.integers(0, len(ids)))
    part = ids[first : data.draw(st.integers(first, len(ids)))]
    made = fim(encoder).rearrange(window(part, room=20), data.draw(st.text(max_size=3)))
    _, tokens = undo(split(made.tokens.tolist(), END)[0])
    assert as_bytes(encoder, tokens) == as_bytes(encoder, part)


def test_stray_bytes_at_the_edges_stay_where_they_were(encoder: Tokenizer) -> None:
    byte = {b: encoder.token_to_id(token) for b, token in zip(b"\xf0\x9f\xa6\x81", "ðŁ¦ģ", strict=True)}
    text = encoder.encode("middle of it", add_special_tokens=False).ids
    ids = [byte[0x9F], byte[0xA6], byte[0x81], *text, byte[0xF0], byte[0x9F], byte[0xA6]]
    for key in map(str, range(20)):
        made = fim(encoder).rearrange(window(ids, room=20), key)
        assert made.counts[COUNTS.index("rearranged")] == 1
        form, tokens = undo(split(made.tokens.tolist(), END)[0])
        assert form != "plain"
        assert tokens[:3] + tokens[-3:] == ids[:3] + ids[-3:]
        assert encoder.decode(tokens[3:-3]) == "middle of it"


def test_a_segment_that_is_no_text_is_kept_and_counted(encoder: Tokenizer) -> None:
    byte = encoder.token_to_id("Ł")  # 0x81, of the middle of a character
    broken = [
        *encoder.encode("a", add_special_tokens=False).ids,
        byte,
        *encoder.encode("b", add_special_tokens=False).ids,
    ]
    marked = [*encoder.encode("x", add_special_tokens=False).ids, MARK.suffix]
    for ids in (broken, marked):
        made = fim(encoder).rearrange(window(ids), "k")
        assert made.tokens.tolist() == ids
        assert dict(zip(COUNTS, made.counts, strict=True)) == dict.fromkeys(COUNTS, 0) | {"segments": 1, "kept": 1}


def test_text_that_a_tokenizer_changes_is_kept() -> None:
    """A normaliser that drops a letter when parts are encoded again."""
    lossy = Tokenizer(models.BPE(vocab={c: i + 5 for i, c in enumerate("abcA")}, merges=[]))
    lossy.add_special_tokens(["<e>", "<p>", "<m>", "<s>", "<d>"])
    ids = {name: lossy.token_to_id(name) for name in ("<e>", "<p>", "<m>", "<s>", "<d>")}
    lossy.normalizer, lossy.decoder = normalizers.Lowercase(), decoders.Fuse()
    lossy.encode_special_tokens = True
    mark = FimTokens(prefix=ids["<p>"], middle=ids["<m>"], suffix=ids["<s>"], pad=ids["<d>"])
    upper = [lossy.token_to_id(c) for c in "bA"]
    made = Fim(lossy, mark, end_of_text=ids["<e>"], rate=1.0).rearrange(np.array(upper), "k")
    assert made.tokens.tolist() == upper
    assert made.counts[COUNTS.index("kept")] == 1


def test_a_marker_that_is_no_special_token_is_not_read_out_of_a_text() -> None:
    plain = Tokenizer(models.BPE(vocab={c: i + 5 for i, c in enumerate("<pab>")}, merges=[]))
    plain.decoder = decoders.Fuse()
    plain.add_tokens([AddedToken("<p>", special=False)])
    plain.encode_special_tokens = True
    ids = [plain.token_to_id(c) for c in "a<p>b"]
    mark = FimTokens(prefix=plain.token_to_id("<p>"), middle=2, suffix=3, pad=4)
    for key in map(str, range(20)):
        made = Fim(plain, mark, end_of_text=0, rate=1.0).rearrange(np.array([*ids, 0, 0, 0, 0]), key)
        (segment, *_) = split(made.tokens.tolist(), 0)
        assert made.tokens.tolist() == [*ids, 0, 0, 0, 0] or segment.count(mark.prefix) == 1


@pytest.mark.parametrize("rate", [0.9, 0.3])
def test_rate_and_forms_are_those_asked_for(encoder: Tokenizer, rate: float) -> None:
    documents = 4000
    ids = encoded(encoder, ["some text"] * documents)
    made = fim(encoder, rate).rearrange(window(ids, room=12 * documents), "rates")
    forms = [undo(segment)[0] for segment in split(made.tokens.tolist(), END)][:documents]
    rearranged = documents - forms.count("plain")
    assert rearranged / documents == pytest.approx(rate, abs=4 * (rate * (1 - rate) / documents) ** 0.5)
    suffix_first = made.counts[COUNTS.index("suffix_first")]
    assert suffix_first / rearranged == pytest.approx(0.5, abs=2 / rearranged**0.5)
    # An empty prefix looks like it too: of nine characters, in 19 of 100 of the others.
    assert forms.count("suffix first") / rearranged == pytest.approx(0.595, abs=2 / rearranged**0.5)
    assert made.counts[:2] == (documents, rearranged)


def test_cuts_are_uniform_over_all_places_between_characters() -> None:
    text, draws = "abc", draw("cuts", 30_000, 1.0)
    found = np.array([[len(p), len(p) + len(m)] for p, m, _ in (thirds(text, d.cuts) for d in draws)])
    # Two independent places 0…3, sorted: of 16 pairs each of the unequal ones comes twice.
    for a in range(4):
        for b in range(a, 4):
            share = np.mean((found[:, 0] == a) & (found[:, 1] == b))
            assert share == pytest.approx((1 if a == b else 2) / 16, abs=0.01)


def test_the_draws_are_those_of_the_key_and_of_no_other() -> None:
    assert draw("a", 5, 0.5) == draw("a", 5, 0.5)
    assert draw("a", 5, 0.5)[:3] == draw("a", 3, 0.5)
    assert draw("a", 5, 0.5) != draw("b", 5, 0.5)
    # Frozen: a run that is resumed, next year too, must draw the same.
    (first,) = draw("winnow fim 1|0|stream|0|0|0", 1, 0.9)
    assert [round(cut, 12) for cut in first.cuts] == FROZEN


FROZEN = [0.4331940413, 0.973045683956]


def test_a_row_keeps_its_length_and_end_of_text_stands_between_segments_only(encoder: Tokenizer) -> None:
    ids = encoded(encoder, ["first text", "second text", "third"])
    assert ids[-1] != END
    for key in map(str, range(10)):
        made = fim(encoder).rearrange(window(ids), key)
        counts = dict(zip(COUNTS, made.counts, strict=True))
        whole = fim(encoder).rearrange(window(ids, room=100), key).tokens.tolist()
        assert made.tokens.tolist() == whole[: len(ids)]
        assert made.length == len(ids)
        assert counts["truncated"] >= 9  # three marks for each, and perhaps other tokens
        assert [bool(segment) for segment in split(whole, END)][:5] == [True, True, True, False, False]


def test_a_row_that_got_shorter_is_padded(encoder: Tokenizer) -> None:
    """Letters one by one, as no encoder would give them, become one token when they are encoded again."""
    letters = [encoder.token_to_id(c) for c in "return" * 6]
    shorter = 0
    for key in map(str, range(30)):
        made = fim(encoder).rearrange(window(letters), key)
        padding = made.counts[COUNTS.index("padding")]
        assert made.tokens[made.length :].tolist() == [MARK.pad] * padding
        assert made.length == len(letters) - padding
        assert MARK.pad not in made.tokens[: made.length]
        assert as_bytes(encoder, undo(made.tokens[: made.length].tolist())[1]) == b"return" * 6
        shorter += padding > 0
    assert shorter > 20


def test_empty_segments_are_left_alone(encoder: Tokenizer) -> None:
    made = fim(encoder).rearrange(window([END, END, END]), "k")
    assert made.tokens.tolist() == [END] * 3
    assert made.counts == (0,) * len(COUNTS)


def test_a_sentencepiece_vocabulary_gives_its_text_back() -> None:
    """Metaspace puts a space before each part that it encodes, and takes it away when it decodes."""
    letters = "▁abcdef"
    piece = Tokenizer(models.BPE(vocab={c: i + 5 for i, c in enumerate(letters)}, merges=[]))
    piece.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    piece.decoder = decoders.Metaspace(prepend_scheme="always")
    piece.encode_special_tokens = True
    ids = piece.encode("abc def fed", add_special_tokens=False).ids
    for key in map(str, range(20)):
        made = fim(piece).rearrange(window(ids, room=8), key)
        segment = split(made.tokens.tolist(), END)[0]
        if segment[0] != MARK.prefix:
            assert segment == ids
            continue
        suffix, middle = segment.index(MARK.suffix), segment.index(MARK.middle)
        parts = [segment[1:suffix], segment[middle + 1 :], segment[suffix + 1 : middle]]
        texts = [piece.decode(part) for part in parts]
        if suffix > 1:
            assert "".join(texts) == "abc def fed"


def test_later_epochs_are_drawn_anew(encoder: Tokenizer) -> None:
    ids = encoded(encoder, ["a text that is long enough to be cut in many places"] * 3)
    rows = [fim(encoder).rearrange(window(ids, room=20), f"epoch {epoch}").tokens for epoch in range(4)]
    assert not any(np.array_equal(a, b) for a, b in pairwise(rows))
