"""A vocabulary grows: how new rows begin, what stays, what is said of tokens that never fire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.dataproc.vocab.conftest import byte_level, like_llama2
from tests.trainer.adapt.conftest import ADD, OLD, PHASES, SPECIAL, Mixtures, Prepare, save_llama, tokenizer_of
from tests.trainer.adapt.test_start import stop_after, trained
from tokenizers import Tokenizer

from manifest.added import Added
from manifest.artifact import open_artifact, open_streams, resolve
from manifest.errors import InputError, RecipeError
from manifest.record import Artifact
from manifest.store import LocalStore
from trainer.adapt import cooccurrence, firing, norms, norms_page
from trainer.adapt.base import open_base
from trainer.adapt.rows import ROWS, GrownVocabulary, open_grown
from trainer.adapt.tokens import growth_between, read_vocabulary
from trainer.checkpoint import load_model
from trainer.huggingface.read import read_hf
from trainer.run import Run

pytestmark = pytest.mark.usefixtures("process_group")

TABLES = ("embedding.weight", "unembedding.weight")


def rows_of(store: LocalStore, run: Run) -> tuple[dict[str, torch.Tensor], GrownVocabulary, dict[str, Any]]:
    """The tables of a run's new rows, what they are, and the artifact's summary."""
    assert run.rows is not None
    opened = open_artifact(resolve(store.where(run.path), run.rows.uri))
    assert isinstance(opened.manifest, Artifact)
    return load_file(opened.directory / ROWS), open_grown(store.where(run.path), run.rows), opened.manifest.summary


def base_tables(llama: Path) -> dict[str, torch.Tensor]:
    return {name: tensor[:OLD] for name, tensor in read_hf(llama).tensors() if name in TABLES}


def test_pieces_are_those_that_the_extension_wrote_down(llama: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    store, run = prepare(llama, mixtures.grown, vocabulary={"new_rows": "mean_of_pieces"})
    made, grown, _ = rows_of(store, run)
    added = Added.model_validate_json((tokenizer_of(mixtures.grown) / "added.json").read_text())
    assert [(row.id, row.pieces) for row in grown.rows] == [(token.id, token.pieces) for token in added.tokens]
    for name, table in base_tables(llama).items():
        expected = torch.stack([table[list(token.pieces)].mean(0) for token in added.tokens])
        torch.testing.assert_close(made[name], expected)


def test_without_that_record_pieces_are_what_the_bases_model_makes_of_a_token(llama: Path, mixtures: Mixtures) -> None:
    assert not (tokenizer_of(mixtures.foreign) / "added.json").exists()
    written, found = (growth_between(open_base(str(llama)), one) for one in (mixtures.grown, mixtures.foreign))
    assert written is not None
    assert found is not None
    assert found.rows == written.rows


def test_a_grown_run_begins_with_the_old_rows_and_logits_of_its_base(
    llama: Path, mixtures: Mixtures, prepare: Prepare
) -> None:
    store, run = prepare(llama, mixtures.grown, vocabulary={"new_rows": "random", "pad_to": 128})
    trained(store, run, stop_after(1))
    begun, _ = load_model(store.where(run.checkpoint_path(0)))
    assert (run.shape.vocab_size, run.shape.padded_vocab) == (OLD + ADD, 384)
    made, grown, _ = rows_of(store, run)
    for name, table in base_tables(llama).items():
        held = begun.get_parameter(name)
        assert torch.equal(held[:OLD], table)
        assert torch.equal(held[[row.id for row in grown.rows]], made[name])
        assert not held[OLD + ADD :].any()
    tokens = torch.randint(0, OLD, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(begun(tokens)[..., :OLD], read_hf(llama).decoder()(tokens)[..., :OLD])


def test_a_first_phase_may_train_the_new_rows_alone(llama: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    phases = {"only": PHASES["only"] | {"trainable": "new_rows"}}
    store, run = prepare(llama, mixtures.grown, phases=phases, vocabulary={"new_rows": "mean_of_pieces"})
    last = trained(store, run)
    made, _, _ = rows_of(store, run)
    before, after = (load_model(store.where(run.checkpoint_path(step)))[0] for step in (0, last.step))
    for name, parameter in before.named_parameters():
        learned = after.get_parameter(name)
        if name not in TABLES:
            assert torch.equal(learned, parameter)
            continue
        assert torch.equal(parameter[OLD : OLD + ADD], made[name])
        assert torch.equal(learned[:OLD], parameter[:OLD])
        assert not torch.equal(learned[OLD : OLD + ADD], made[name])


def test_a_tied_base_grows_one_table(tmp_path: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    save_llama(tmp_path / "tied", mixtures.tokenizer, tie_word_embeddings=True)
    made, _, _ = rows_of(*prepare(tmp_path / "tied", mixtures.grown, vocabulary={"new_rows": "mean_of_all"}))
    table = dict(read_hf(tmp_path / "tied").tensors())["embedding.weight"][:OLD]
    assert list(made) == ["embedding.weight"]
    torch.testing.assert_close(made["embedding.weight"], table.mean(0).repeat(ADD, 1))


def test_tokens_that_are_replaced_take_rows_that_begin_anew(llama: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    store, run = prepare(llama, mixtures.replaced, vocabulary={"new_rows": "mean_of_all"})
    trained(store, run, stop_after(1))
    _, grown, summary = rows_of(store, run)
    ids = {row.id for row in grown.rows}
    assert (run.shape.vocab_size, summary["replaced"], ids) == (OLD, ADD, set(grown.replaced))
    begun, _ = load_model(store.where(run.checkpoint_path(0)))
    kept = sorted(set(range(OLD)) - ids)
    for name, table in base_tables(llama).items():
        assert torch.equal(begun.get_parameter(name)[kept], table[kept])
        torch.testing.assert_close(begun.get_parameter(name)[min(ids)], table[kept].mean(0))


def donor_of(tmp_path: Path, mixtures: Mixtures, base: Path, width: int) -> tuple[Path, dict[str, torch.Tensor]]:
    """A model with the grown tokenizer whose old rows are the base's times a matrix (32, width), and that per table."""
    directory, tokenizer = tmp_path / "donor", tokenizer_of(mixtures.grown) / "tokenizer.json"
    model = save_llama(directory, tokenizer, seed=5, vocab_size=OLD + ADD, hidden_size=width, tie_word_embeddings=False)
    generator = torch.Generator().manual_seed(2)
    maps = {name: torch.randn(32, width, generator=generator) for name in TABLES}
    theirs = dict(zip(TABLES, (model.model.embed_tokens.weight, model.lm_head.weight), strict=True))
    with torch.no_grad():
        for name, ours in base_tables(base).items():
            theirs[name][:OLD] = ours @ maps[name]
    model.save_pretrained(directory)
    return directory, maps


def test_a_donors_rows_are_projected_by_the_map_that_shared_tokens_give(
    llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path
) -> None:
    donor, maps = donor_of(tmp_path, mixtures, llama, width=48)
    made, grown, summary = rows_of(
        *prepare(llama, mixtures.grown, vocabulary={"new_rows": "projection", "donor": str(donor)})
    )
    theirs = dict(read_hf(donor).tensors())
    ids = [row.id for row in grown.rows]
    assert summary["starts"] == {"projection": ADD}
    assert all(explained > 0.9999 for explained in summary["explained"].values())
    for name in TABLES:  # of the maps that undo the matrix, the one of least norm
        expected = theirs[name][ids] @ torch.linalg.pinv(maps[name])
        torch.testing.assert_close(made[name], expected, atol=1e-3, rtol=1e-3)


def test_tokens_of_two_makes_are_the_same_if_they_stand_for_the_same_bytes(tmp_path: Path) -> None:
    made = {"byte_level": byte_level(), "like_llama2": like_llama2()}
    for name, tokenizer in made.items():
        tokenizer.save(str(tmp_path / name))
    found = {name: read_vocabulary(tmp_path / name).bytes_of for name in made}
    by_bytes = {name: {data: number for number, data in held.items()} for name, held in found.items()}
    assert len(by_bytes["like_llama2"]) == len(found["like_llama2"])
    for written, llama2, levels in ((b" the", "▁the", "Ġthe"), (b"e", "e", "e"), (b"\xd8", "<0xD8>", "Ø")):
        assert by_bytes["like_llama2"][written] == made["like_llama2"].token_to_id(llama2) is not None
        assert by_bytes["byte_level"][written] == made["byte_level"].token_to_id(levels) is not None
    assert made["like_llama2"].token_to_id("<0x65>") not in found["like_llama2"]


def test_a_donor_with_too_few_tokens_in_common_is_refused(
    llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path
) -> None:
    donor, _ = donor_of(tmp_path, mixtures, llama, width=512)
    with pytest.raises(InputError, match=r"in common with the base .* a map of its 512 dimensions needs at least as"):
        prepare(llama, mixtures.grown, vocabulary={"new_rows": "projection", "donor": str(donor)})


def test_likeness_in_another_model_finds_the_tokens_that_are_like_a_new_one_there(
    llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(mixtures.grown) / "tokenizer.json"
    other = tmp_path / "other"
    model = save_llama(other, tokenizer, vocab_size=OLD + ADD)
    with torch.no_grad():  # new token n is there what old token n − 200 is
        model.model.embed_tokens.weight[OLD:] = model.model.embed_tokens.weight[OLD - 200 : OLD - 200 + ADD]
    model.save_pretrained(other)
    made, _, summary = rows_of(
        *prepare(llama, mixtures.grown, vocabulary={"new_rows": "similarity", "auxiliary": str(other), "top_k": 1})
    )
    assert summary["starts"] == {"similarity": ADD}
    for name, table in base_tables(llama).items():
        torch.testing.assert_close(made[name], table[OLD - 200 : OLD - 200 + ADD])


def test_likeness_in_the_mixture_is_what_stands_nearby(llama: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    settings = {"new_rows": "similarity", "top_k": 3}
    made, grown, summary = rows_of(*prepare(llama, mixtures.grown, vocabulary=settings))
    assert sum(summary["starts"].values()) == ADD
    assert summary["starts"]["similarity"] > ADD / 2
    vectors = torch.from_numpy(cooccurrence.vectors(mixtures.grown))
    seen = [n for n in range(OLD) if vectors[n].any()]
    place = next(i for i, row in enumerate(grown.rows) if row.start == "similarity")
    cosines = torch.nn.functional.cosine_similarity(vectors[seen], vectors[grown.rows[place].id], dim=1)
    best = cosines.topk(3)
    weights = best.values.clamp(min=0) / best.values.clamp(min=0).sum()
    for name, table in base_tables(llama).items():
        expected = (weights[:, None] * table[[seen[i] for i in best.indices]]).sum(0)
        torch.testing.assert_close(made[name][place], expected, atol=1e-4, rtol=1e-4)


def test_vectors_of_a_mixture_are_positive_pointwise_mutual_information(mixtures: Mixtures) -> None:
    vectors = cooccurrence.vectors(mixtures.grown)
    streams = open_streams(mixtures.grown)
    counts = np.zeros((OLD + ADD, OLD + ADD))
    frequency = np.zeros(OLD + ADD)
    for stream in streams.values():
        tokens = np.asarray(stream.read(0, stream.tokens), np.int64)
        frequency += np.bincount(tokens, minlength=OLD + ADD)
        for i, token in enumerate(tokens):
            for near in (*tokens[max(0, i - 4) : i], *tokens[i + 1 : i + 5]):
                counts[token, near] += 1
    by_rank = np.argsort(-frequency, kind="stable")[: vectors.shape[1]]
    counts = counts[:, by_rank]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.log(counts * counts.sum() / counts.sum(1)[:, None] / counts.sum(0))
    expected = np.maximum(np.nan_to_num(expected, nan=0.0, neginf=0.0), 0.0)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)


def test_tokens_that_never_fire_are_named_before_training(llama: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    store, run = prepare(llama, mixtures.english, vocabulary={"new_rows": "mean_of_pieces"})
    assert run.rows is not None
    grown = open_grown(store.where(run.path), run.rows)
    said, warning = firing.remarks(firing.count(mixtures.english), grown.texts)
    assert said.startswith(f"0 of {ADD} new tokens fire in the mixture: 0 times in all ")
    assert warning.startswith(
        f"warning: new tokens that never fire there, so that nothing is learned of them ({ADD}): "
    )
    assert f"{grown.rows[0].id} {grown.rows[0].token!r}" in warning
    found = firing.count(mixtures.grown)
    stream = open_streams(mixtures.grown)["arabic"]
    expected = int((np.asarray(stream.read(0, stream.tokens)) >= OLD).sum())
    assert found.counts[OLD:].sum() == expected > 0
    assert found.read == found.total


def test_a_sample_of_the_mixture_is_called_one(llama: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    store, run = prepare(llama, mixtures.grown, vocabulary={"new_rows": "mean_of_pieces"})
    assert run.rows is not None
    said = next(
        firing.remarks(firing.count(mixtures.grown, limit=100), open_grown(store.where(run.path), run.rows).texts)
    )
    assert "times in a sample of 200 of the " in said


def test_norms_of_old_and_new_rows_before_and_after(
    llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path
) -> None:
    store, run = prepare(llama, mixtures.grown, vocabulary={"new_rows": "mean_of_pieces"})
    last = trained(store, run)
    found = norms.measure(store.root / run.path)
    assert found.steps == (0, last.step)
    for step in found.steps:
        decoder, _ = load_model(store.where(run.checkpoint_path(step)))
        for name in TABLES:
            lengths = decoder.get_parameter(name).detach().norm(dim=1)
            old, new = found.of(name, step)
            assert (old.count, new.count) == (OLD, ADD)
            assert old.mean == pytest.approx(float(lengths[:OLD].mean()), rel=1e-5)
            assert new.quantiles[2] == pytest.approx(float(lengths[OLD : OLD + ADD].double().quantile(0.5)), rel=1e-5)
            assert sum(new.histogram) == ADD
    file = norms_page.write(found, tmp_path / "page")
    assert norms.NormReport.model_validate_json(file.read_text()) == found
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "| input embeddings | 0 | new | 24 |" in file.with_suffix(".md").read_text()


def test_a_run_without_new_tokens_has_no_norms_to_compare(llama: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    store, run = prepare(llama, mixtures.same, vocabulary={"new_rows": "mean_of_pieces"})
    assert run.rows is None
    with pytest.raises(InputError, match="has no new tokens: it started from a model with the tokenizer of its"):
        norms.measure(store.root / run.path)


@pytest.mark.parametrize(
    ("vocabulary", "said"),
    [
        ({"new_rows": "projection"}, "`new_rows: projection` needs a donor"),
        ({"new_rows": "random", "donor": "x"}, "no other start has one"),
        ({"new_rows": "random", "top_k": 2}, "auxiliary and top_k are of `new_rows: similarity` alone"),
        ({"new_rows": "zeros"}, "vocabulary.new_rows"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(
    vocabulary: dict[str, Any], said: str, llama: Path, mixtures: Mixtures, prepare: Prepare
) -> None:
    with pytest.raises(RecipeError, match=said):
        prepare(llama, mixtures.grown, vocabulary=vocabulary)


def test_special_tokens_that_a_base_has_not_begin_as_their_spelling(llama: Path, mixtures: Mixtures) -> None:
    found = growth_between(open_base(str(llama)), mixtures.special)
    spelling = Tokenizer.from_file(str(mixtures.tokenizer)).encode(SPECIAL, add_special_tokens=False).ids
    assert found is not None
    assert [(row.id, row.token, row.pieces) for row in found.rows] == [(OLD, SPECIAL, tuple(spelling))]
