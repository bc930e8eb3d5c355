"""Prompt protocols: the exact words with which exam questions are asked, by name and version.

Outcomes of one protocol are comparable, of two they are not: the same candidate scores differently
with and without worked examples. So a change of any word here raises the protocol's version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msat_core.aptitude import reasoning_gym
from msat_core.aptitude.questions import Question, QuestionSet
from msat_core.errors import ConfigurationError, ExamError

_FORMAT = 'Reason step by step, then finish with one line: "The answer is (X)".'
_FORMAT_TEXT = 'Reason step by step, then finish with one line: "The answer is X", where X is only the answer.'
_CUE = "Let's think step by step."


@dataclass(frozen=True)
class Protocol:
    """How a question is asked.

    Attributes:
        name, version: written into every profile that was made with it.
        n_examples: worked examples before the question (in-context examples, not exam shots).
        expected_output_tokens: mean length of an answer, for the estimate before a run.
        instructions: what to say before the bare question, in place of this module's own words.
    """

    name: str
    version: int
    n_examples: int
    expected_output_tokens: int
    instructions: Callable[[], str] | None = None

    def prompt(self, question: Question, examples: Mapping[str, Sequence[Question]]) -> str:
        """The one user message that asks the question.

        Args:
            question: what is asked; without options it is asked for a short answer.
            examples: worked examples by category; the first ``n_examples`` of the question's own are used.

        Raises:
            ExamError: too few examples of the question's category.
        """
        if self.instructions is not None:
            return f"{self.instructions()}\n\n{question.with_options()}"
        if not self.n_examples:
            return f"{_block(question)}\n\n{_FORMAT if question.options else _FORMAT_TEXT}"
        chosen = list(examples.get(question.category, ()))[: self.n_examples]
        if len(chosen) < self.n_examples:
            raise ExamError(
                f"The protocol {self.name} shows {self.n_examples} worked examples, but the question source has "
                f"{len(chosen)} of the category {question.category!r}: use --protocol {ZERO_SHOT.name}, the hub data "
                "set (its validation split has them), or put an examples.jsonl beside the items."
            )
        about = f" about {question.category}" if question.category else ""
        head = f"The following are multiple-choice questions (with answers){about}. {_FORMAT}"
        solved = [f"{_block(example)}\nAnswer: {_worked(example)}" for example in chosen]
        return "\n\n".join([head, *solved, f"{_block(question)}\nAnswer: {_CUE}"])


def _block(question: Question) -> str:
    """The question exactly as records hold it, options below."""
    return f"Question: {question.with_options()}"


def _worked(example: Question) -> str:
    """An example's chain of thought, which the data set begins with a cue of its own."""
    return example.reasoning.strip().removeprefix("A:").strip() or f"The answer is ({example.answer})."


# In the manner of MMLU-Pro's own evaluation: five worked examples of the question's category, then the question.
FIVE_SHOT = Protocol("five-shot-cot", version=1, n_examples=5, expected_output_tokens=150)
ZERO_SHOT = Protocol("zero-shot-cot", version=1, n_examples=0, expected_output_tokens=350)
# For questions whose verifier reads the answer between tags.
ANSWER_TAGS = Protocol(
    "answer-tags", version=1, n_examples=0, expected_output_tokens=450, instructions=reasoning_gym.instructions
)
PROTOCOLS = {protocol.name: protocol for protocol in (FIVE_SHOT, ZERO_SHOT, ANSWER_TAGS)}


def protocol_named(name: str) -> Protocol:
    """The protocol of that name. Raises ConfigurationError for an unknown one."""
    if name not in PROTOCOLS:
        raise ConfigurationError(f"There is no protocol {name!r}: choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def fitting_protocol(questions: QuestionSet) -> Protocol:
    """Answer tags for verifiers, five-shot where the questions come with worked examples, else zero-shot."""
    if questions.exact:
        return ANSWER_TAGS
    return FIVE_SHOT if questions.examples else ZERO_SHOT
