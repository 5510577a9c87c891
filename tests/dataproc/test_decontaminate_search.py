"""Words, grams and spans against a plain reading of their definition."""

from __future__ import annotations

import random
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataproc.decontaminate import index as module
from dataproc.decontaminate.index import LEAST, MATCHED, matched, search_for, words_of
from dataproc.decontaminate.letters import UNSPACED

Word = tuple[str, int, int, float]
"""As it is compared, its start and end, and for how many words it counts."""
Span = tuple[int, int, int, int, int, int, int]


NOTHING = ("VARIATION SELECTOR", " FILLER", "GRAPHEME JOINER", "VOWEL INHERENT")
"""In the names of letters and marks that write nothing."""


def is_unspaced(character: str) -> bool:
    return any(low <= ord(character) <= high for _, low, high in UNSPACED)


def form(character: str) -> str:
    """By the definition: compatibility decomposition without combining marks, folded, digits as 0 to 9."""
    if character == "\u0640" or any(word in unicodedata.name(character, "") for word in NOTHING):
        return ""
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.digit(character))
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return "".join(c for c in text if unicodedata.category(c)[0] in "LMN" and unicodedata.combining(c) == 0)


def oracle_words(text: str) -> list[Word]:
    words: list[list[object]] = []
    going = False
    for place, character in enumerate(text):
        category = unicodedata.category(character)
        if category[0] == "Z" or category == "Cc":
            going = False
        elif category[0] in "LMN" and category != "Me" and form(character):
            alone = category[0] == "L" and is_unspaced(character)
            after_alone = going and words[-1][3] == 0.5
            if not going or alone or (after_alone and category[0] != "M"):
                words.append(["", place, 0, 0.5 if alone else 1.0])
            words[-1][0] = str(words[-1][0]) + form(character)
            words[-1][2] = place + 1
            going = True
    return [(str(w), int(str(a)), int(str(b)), float(str(n))) for w, a, b, n in words]


def runs(words: list[Word], least: float) -> list[tuple[int, int]]:
    """From each word the shortest run that counts for `least` words."""
    found = []
    for first in range(len(words)):
        for last in range(first + 1, len(words) + 1):
            if sum(w[3] for w in words[first:last]) >= least:
                found.append((first, last))
                break
    return found


def oracle_spans(documents: list[str], items: list[str], ngram: int) -> set[Span]:
    found: set[Span] = set()
    for number, item in enumerate(items):
        theirs = oracle_words(item)
        total = sum(w[3] for w in theirs)
        if total < min(LEAST, ngram):
            continue
        grams = runs(theirs, ngram) if total >= ngram else [(0, len(theirs))]
        first_of: dict[tuple[str, ...], tuple[int, int]] = {}
        for a, b in grams:
            first_of.setdefault(tuple(w[0] for w in theirs[a:b]), (a, b))
        for row, document in enumerate(documents):
            ours = oracle_words(document)
            at = {
                first: (first + len(gram), *first_of[gram])
                for first in range(len(ours))
                for gram in first_of
                if tuple(w[0] for w in ours[first : first + len(gram)]) == gram
            }
            starts = [first for first in at if first - 1 not in at]
            for start in starts:
                run = [start]
                while run[-1] + 1 in at:
                    run.append(run[-1] + 1)
                found.add(
                    (
                        *(row, number, ours[start][1], max(ours[at[i][0] - 1][2] for i in run)),
                        *(min(theirs[at[i][1]][1] for i in run), max(theirs[at[i][2] - 1][2] for i in run), len(run)),
                    )
                )
    return found


def spans(documents: list[str], items: list[str], ngram: int) -> set[Span]:
    rows = search_for(items, ngram).spans(pa.array(documents, pa.large_string())).tolist()
    assert rows == sorted(rows, key=lambda row: row[:3])
    assert len({tuple(row) for row in rows}) == len(rows)
    return {tuple(row) for row in rows}


WORDS = [
    "a",
    "B",
    "cé",
    "d'e",
    "-",
    "7",
    "\u0665",
    "世",
    "界",
    "か",
    "اَ",
    "ฉัน",
    "\u0939\u093f",
    "ﬁ",
    "İ",
    "STRASSE",
    "straße",
]
GAPS = [" ", "", "  ", ", ", "\n", "\u3000", "\u200b", "\u0301"]


@st.composite
def texts(draw: st.DrawFn, most: int) -> str:
    parts = draw(
        st.lists(
            st.tuples(st.sampled_from(WORDS[: draw(st.integers(2, len(WORDS)))]), st.sampled_from(GAPS)), max_size=most
        )
    )
    return "".join(word + gap for word, gap in parts)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(texts(24), min_size=1, max_size=4),
    st.lists(texts(40), min_size=1, max_size=3),
    st.sampled_from([2, 3, 8, 9, 13]),
    st.randoms(use_true_random=False),
)
def test_spans_are_those_of_a_plain_search(items: list[str], others: list[str], ngram: int, rng: random.Random) -> None:
    planted = [item[rng.randint(0, len(item) // 3) : len(item) - rng.randint(0, len(item) // 3)] for item in items]
    documents = [*others, *(f"{rng.choice(others)} {part} {rng.choice(others)}" for part in planted), ""]
    assert spans(documents, items, ngram) == oracle_spans(documents, items, ngram)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
@example("ﷺ ½ ㎏ \ufe0f1\u20e3 a\u0640b 𝒳 \U0001f600 don’t well-known")
@example("क्षत्रिय हिन्दी ภาษาไทย 한국어 ガラス ｶﾞﾗｽ ΑΣ ας")
def test_words_are_those_of_the_definition(text: str) -> None:
    found = words_of(pa.array([text], pa.large_string()))
    spelled = "".join(map(chr, found.spelled)).split("\0")[:-1] if len(found.spelled) else []
    ours = [(w, a, b, n / 2) for w, (a, b, _, n) in zip(spelled, found.tokens.tolist(), strict=True)]
    assert ours == oracle_words(text)


QUESTION = "The quick brown fox, at 10 o'clock, jumps over the lazy dog – and naïvely sleeps until Noon."


@pytest.mark.parametrize(
    "written",
    [
        QUESTION.upper(),
        unicodedata.normalize("NFD", QUESTION),
        QUESTION.replace("ï", "i").replace(",", " ,").replace("'", "\u2019"),
        QUESTION.replace(" ", "\n\t "),
        "".join(chr(ord(c) + 0xFEE0) if "!" < c <= "~" else c for c in QUESTION),
        QUESTION.replace("10", "١٠"),
    ],
)
def test_ways_to_write_a_text_are_one(written: str) -> None:
    document = f"Before it. {written} After it."
    ((row, item, start, end, item_start, item_end, _),) = spans([document], [QUESTION], 13)
    assert (row, item, item_start, item_end) == (0, 0, 0, len(QUESTION) - 1)
    assert document[start:end] == written[:-1]


def test_arabic_is_found_with_and_without_vowel_signs_hamza_and_tatweel() -> None:
    bare = "سال الطالب معلمه عن اسباب سقوط الدولة الاموية في الاندلس وعن اهم نتائجه"
    voweled = bare.replace("سال", "سَأَلَ").replace("اسباب", "أسباب").replace("الدولة", "الدّولــة")
    assert [len(oracle_words(text)) for text in (bare, voweled)] == [13, 13]
    ((*_, grams),) = spans([f"قيل: {voweled}؟"], [bare], 13)
    assert grams == 1


def test_characters_of_chinese_count_as_half_a_word() -> None:
    item = "下列关于光合作用的说法中正确的是哪一项请选择一个最合适的答案并说明理由"
    document = f"题目：{item[:12]}，{item[12:26]}。"
    ((_, _, start, end, item_start, item_end, grams),) = spans([document], [item], 13)
    assert (document[start:end], item_start, item_end, grams) == (document[3:-1], 0, 26, 1)
    assert not spans([item[:25]], [item], 13)


def test_an_item_shorter_than_a_gram_has_to_be_there_whole() -> None:
    eight = "who wrote the first book about whales really"
    assert matched(words_of(pa.array([eight, eight[4:], eight * 2], pa.large_string())), 13).tolist() == [1, 2, 0]
    assert MATCHED == ("n-grams", "whole", "skipped")
    assert spans([f"So, {eight}?"], [eight], 13) == {(0, 0, 4, 48, 0, 44, 1)}
    assert not spans([eight.replace("whales", "a whale"), eight + "x", eight[:-7]], [eight], 13)


def test_words_that_many_items_share_are_attributed_to_the_first_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "which of the following is the most likely cause of the finding in"
    items = [f"{asked} patient {number}" for number in range(10)]
    monkeypatch.setattr(module, "SHARED", 4)
    assert {span[1] for span in spans([asked], items, 13)} == {0, 1, 2, 3}
    assert 9 in {span[1] for span in spans([items[9]], items, 13)}


def test_a_hash_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    search = search_for([QUESTION], 13)
    other = search_for([QUESTION.replace("lazy", "tired")], 13)
    forged = search.index._replace(words=other.index.words)  # the same hashes, other words behind them
    found = module.search_of(forged, search.table, 13).spans(pa.array([QUESTION], pa.large_string()))
    assert found[:, 6].sum() < search.spans(pa.array([QUESTION], pa.large_string()))[:, 6].sum()


def test_a_document_of_more_spans_than_there_is_room_for() -> None:
    item = " ".join(f"w{i}" for i in range(13))
    document = " x ".join([item] * 3000)
    found = spans(["", document, item], [item], 13)
    assert len(found) == 3001
    assert {span[0] for span in found} == {1, 2}
