from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msat_core.aptitude.answers import read_choice, read_text, same_text
from msat_core.lettered_options import LETTERS

OPTIONS = ("a foo", "b bar", "a cat", "some dog", "e", "f", "g", "h", "i", "j")


@pytest.mark.parametrize(
    "reply",
    [
        "C",
        "c",
        "(C)",
        "**C**",
        "C.",
        "C) a cat",
        "a cat\n\nC",
        "C\n\nbecause cats purr",
        "The answer is C",
        "The answer is (C).",
        "the answer is **(C)**.",
        "The correct answer is option C: a cat",
        "The answer is C because cats purr",
        "Final Answer: [C]",
        "**Answer: (C)**",
        "Answer\nC",
        "The answer is:\nC. a cat",
        "The correct option is **C**",
        "Option C is correct",
        "Thus (C) is the correct answer.",
        "I would go with option (c)",
        "The answer is a cat",
        r"So $\boxed{C}$",
        r"\boxed{\text{C}}",
        '{"answer": "C"}',
        '{"reasoning": "A is wrong", "Answer": "(C) a cat"}',
        '```json\n{"answer": "C"}\n```',
        "{'answer': 'C'}",
        "<answer>C</answer>",
        "<think>Maybe the answer is A.</think>\nC",
        "A could be. B as well.\nThe answer is A.\nNo, wait. The answer is (C).",
        "Reasoning.\nThe answer is (C).\n\nQuestion: another one?\nAnswer: The answer is (D).",
    ],
)
def test_a_stated_letter_is_read(reply: str) -> None:
    assert read_choice(reply, OPTIONS) == "C"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "   \n",
        "I am unable to decide between these.",
        "A difficult question. I think it depends.",
        "The answer is a matter of taste",
        "The answer is not C",
        "The answer is B or C",
        "The answer is (B) and (C).",
        "A. true\nB. false\nC. true",
        "{broken json",
        "The answer is (Z).",
        "<html><body>Welcome!</body></html>",
    ],
)
def test_what_states_no_answer_is_unreadable(reply: str) -> None:
    assert read_choice(reply, OPTIONS) is None


def test_a_letter_beyond_the_options_is_no_answer() -> None:
    assert read_choice("The answer is (E).", OPTIONS) == "E"
    assert read_choice("The answer is (E).", OPTIONS[:4]) is None


FORMS = ("The answer is ({})", "The answer is {}.", "Answer: {}", "**{}**", '{{"answer": "{}"}}', r"\boxed{{{}}}")


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="{}<>"), max_size=200),
    st.sampled_from(FORMS),
    st.integers(0, len(OPTIONS) - 1),
)
def test_a_final_line_is_read_whatever_stands_before_it(before: str, form: str, index: int) -> None:
    if "question" in before.lower():  # a following question is not the candidate's own answer
        return
    assert read_choice(f"{before}\n{form.format(LETTERS[index])}", OPTIONS) == LETTERS[index]


@given(st.text(), st.integers(1, 10))
def test_any_reply_gives_an_option_or_nothing(reply: str, n_options: int) -> None:
    found = read_choice(reply, OPTIONS[:n_options])
    assert found is None or found in LETTERS[:n_options]
    assert read_text(reply) is None or read_text(reply)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Some steps.\nThe answer is $1,234.00.", "1234"),
        ("Some steps.\n#### 18", "18"),
        (r"Thus \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("The answer is 18 eggs.", "18"),
        ("Therefore.\nThe answer is [(4, 1), (2, 3)].", "[(4, 1), (2, 3)]"),
        ('{"answer": 18}', "18"),
        ("Paris", "paris"),
    ],
)
def test_short_answers_are_read_and_compared(reply: str, expected: str) -> None:
    given = read_text(reply)
    assert given is not None
    assert same_text(given, expected)
    assert not same_text(given, "17")


def test_a_long_reply_without_a_stated_answer_is_unreadable() -> None:
    assert read_text("First this.\nThen that.") is None
