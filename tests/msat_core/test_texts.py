"""Words and tokens of any script, and texts of any length."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from msat_core.encoders.base import Encoder
from msat_core.encoders.folder import EncoderFiles
from msat_core.encoders.loading import load_encoder
from msat_core.encoders.tokens import Tokens
from msat_core.pretrained import ENCODER
from msat_core.routing.conversation import Turn, read_conversation, size_of
from msat_core.texts import n_words, replace_surrogates, tokens_in


@pytest.mark.parametrize(
    "text, words",
    [
        ("What's the capital of France?", 5),
        ("请仔细回答下面的问题", 5),
        ("好", 1),
        ("日本の首都はどこですか", 5),
        ("ประเทศไทยมีกี่จังหวัด", 6),
        ("भारत की राजधानी क्या है?", 5),
        ("Какая столица Франции?", 3),
        ("𠮷野家", 2),
        ("请用 Python 写", 3),
        (" ?! ", 0),
    ],
)
def test_every_script_has_words(text: str, words: int) -> None:
    assert n_words(text) == words


@pytest.mark.parametrize(
    "question", ["法国的首都是哪里？请说明理由", "フランスの首都はどこですか", "เมืองหลวงของฝรั่งเศสคืออะไร"]
)
def test_a_question_without_spaces_is_no_follow_up(question: str) -> None:
    turns = [
        Turn("user", "Prove that there are infinitely many primes."),
        Turn("assistant", "…"),
        Turn("user", question),
    ]
    assert read_conversation(turns).instruction == question


def test_tokens_go_by_script() -> None:
    assert tokens_in("abcd" * 100) == 100
    assert tokens_in("请仔细回答") == 5
    assert 5 < tokens_in("Какая столица") < 13
    assert tokens_in("😀") == 2
    assert tokens_in("") == 0
    assert size_of("abcde") == 5


def test_tokens_of_a_long_text_are_sampled() -> None:
    half = "word " * 100_000 + "请仔细回答" * 100_000
    assert tokens_in(half) == pytest.approx(100_000 * 5 / 4 + 500_000, rel=0.15)
    assert tokens_in("a" * 1_000_001) == pytest.approx(250_000, rel=1e-3)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    files = EncoderFiles.load(ENCODER)
    return Tokens(files.tokenizer, max_length=256, tail_share=0.25)


def test_both_ends_of_a_long_text_are_read(tokens: Tokens) -> None:
    """Beyond the encoder's length its beginning and its end count, and nothing between them."""
    filler = "some words about nothing at all " * 20_000
    (plain, tailed, middle), cut = tokens.read(
        [filler, filler + " What is the capital of France?", filler[:100_000] + " France " + filler[100_000:]]
    )
    assert len(plain) == len(tailed) == 256
    assert plain[:150] == tailed[:150] and plain != tailed
    assert middle == plain
    assert cut[0] == pytest.approx(120_000, rel=0.02)


def test_a_text_that_fits_is_read_whole_and_what_is_cut_is_counted(tokens: Tokens) -> None:
    (short, full, over), cut = tokens.read(["word", "word " * 254, "word " * 300])
    assert len(short) == 3 and len(full) == len(over) == 256
    assert cut.tolist() == [0, 0, 46]


@pytest.mark.parametrize(
    "text", ["\n" * 50_000 + "a question" + " " * 50_000, "x" * 100_000, "的" * 100_000, "\ud800" * 20_000]
)
def test_odd_long_texts_have_a_vector(encoder: Encoder, text: str) -> None:
    found = encoder.encode([text])
    assert np.isfinite(found.vectors).all()
    assert found.truncated_tokens[0] >= 0


def test_blanks_around_a_question_do_not_hide_it(encoder: Encoder) -> None:
    bare, blank = encoder.encode(
        ["What is the capital of France?", "\n" * 50_000 + "What is the capital of France?" + " " * 50_000]
    ).vectors
    assert bare @ blank == pytest.approx(1, abs=1e-4)


def test_a_text_of_ten_megabytes_is_not_copied_about(encoder: Encoder) -> None:
    text = "word " * 2_000_000
    encoder.encode(["warm"])
    tracemalloc.start()
    try:
        encoder.encode([text])
        size_of(text)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(text)
    finally:
        tracemalloc.stop()


def test_surrogates_are_replaced() -> None:
    assert replace_surrogates("a\ud800b") == "a\ufffdb"
    assert replace_surrogates("plain") == "plain"
