"""What the user asks inside a prompt: what is scored is the question, what is measured is everything that is sent."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import BasePromptTemplate, SelectorPromptTemplate

from msat_core import Turn, role_of, size_of

QUESTION_KEYS = ("query_str", "query", "question")
_HISTORY_KEY, _ANSWER_KEY = "chat_history", "existing_answer"
_SPOKEN = re.compile(r"^(system|developer|user|assistant|model|chatbot|tool|function): ", re.MULTILINE)


@dataclass(frozen=True)
class Frame:
    """A template of LlamaIndex's own, which wraps a question before any LLM sees it.

    Attributes:
        literals: its fixed texts, one more than there are names.
        names: its variables, in order.
        question: which of them is the question.
    """

    literals: tuple[str, ...]
    names: tuple[str, ...]
    question: str

    @classmethod
    def of(cls, template: str, question: str) -> Frame:
        """Read a format string."""
        parts = list(Formatter().parse(template.strip()))
        names = tuple(name for _, name, _, _ in parts if name is not None)
        literals = [text for text, _, _, _ in parts]
        return cls(tuple(literals if len(literals) > len(names) else [*literals, ""]), names, question)

    def values_in(self, text: str) -> dict[str, str] | None:
        """The variables' values in a text of this frame, from the question to its nearer end; None for another text."""
        text = text.strip()
        if not text.startswith(self.literals[0].rstrip()) or not text.endswith(self.literals[-1].strip()):
            return None
        start, end = len(self.literals[0]), len(text) - len(self.literals[-1].rstrip())
        values: dict[str, str] = {}
        if self.names[0] == self.question:
            after = self.literals[1].rstrip()
            stop = text.find(after, start) if after else end
            return {self.question: text[start:stop]} if stop >= start else None
        for i in range(len(self.names) - 1, -1, -1):
            at = text.rfind(self.literals[i], 0, end) if i else 0
            if at < 0 or at + len(self.literals[i]) > end:
                return values if self.question in values else None
            values[self.names[i]] = text[at + len(self.literals[i]) : end]
            end = at
        return values


@functools.cache
def frames() -> tuple[Frame, ...]:
    """The templates that LlamaIndex fills before it calls `complete` or `chat`, and those without a question key."""
    from llama_index.core.agent.workflow.prompts import DEFAULT_STATE_PROMPT
    from llama_index.core.chat_engine.condense_plus_context import DEFAULT_CONDENSE_PROMPT_TEMPLATE
    from llama_index.core.chat_engine.condense_question import DEFAULT_TEMPLATE
    from llama_index.core.prompts import default_prompts
    from llama_index.core.retrievers.fusion_retriever import QUERY_GEN_PROMPT

    return tuple(
        Frame.of(template, question)
        for template, question in (
            (DEFAULT_STATE_PROMPT, "msg"),
            (DEFAULT_CONDENSE_PROMPT_TEMPLATE, "question"),
            (DEFAULT_TEMPLATE, "question"),
            (QUERY_GEN_PROMPT, "query"),
            (default_prompts.HYDE_TMPL, "context_str"),
            (default_prompts.DEFAULT_TEXT_QA_PROMPT_TMPL, "query_str"),
            (default_prompts.DEFAULT_TREE_SUMMARIZE_TMPL, "query_str"),
            (default_prompts.DEFAULT_REFINE_PROMPT_TMPL, "query_str"),
        )
    )


def unframed(turns: Sequence[Turn], author_of: Callable[[str], Mapping[str, Any] | None]) -> list[Turn]:
    """The turns with what the user asked in place of LlamaIndex's frames around it; sizes stay."""
    plain_turns: list[Turn] = []
    for turn in turns:
        values = None
        if turn.role == "user":
            values, frame = next(((v, f) for f in frames() if (v := f.values_in(turn.text))), (None, None))
        if values is None or frame is None or not values[frame.question].strip():
            plain_turns.append(turn)
        else:
            plain_turns += [*_spoken(values.get(_HISTORY_KEY), author_of), _asking(turn, values[frame.question])]
    return plain_turns


def unprompted(
    turns: Sequence[Turn],
    prompt: BasePromptTemplate,
    arguments: Mapping[str, Any],
    author_of: Callable[[str], Mapping[str, Any] | None],
) -> list[Turn]:
    """The turns of a formatted prompt, with the question it was given in place of the text that wraps it."""
    inputs = {**getattr(prompt, "kwargs", {}), **arguments}
    questions = (inputs.get(key) for key in QUESTION_KEYS)
    question = next((text for text in questions if isinstance(text, str) and text.strip()), None)
    if question is None:
        return unframed(turns, author_of)
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        return [*turns, Turn("user", question)]
    spoken = _spoken(inputs.get(_HISTORY_KEY), author_of)
    plain_turns = [*turns[:last], *spoken, _asking(turns[last], question), *turns[last + 1 :]]
    answer = inputs.get(_ANSWER_KEY)
    tag = author_of(answer) if isinstance(answer, str) else None
    if tag is not None:  # who gave the answer refines it
        plain_turns.append(Turn("assistant", candidate=tag["candidate"], turn=tag["turn"]))
    return plain_turns


def _asking(turn: Turn, question: str) -> Turn:
    rest = max(0, size_of(turn.text) - size_of(question))
    return turn._replace(text=question, extra_chars=turn.extra_chars + rest)


def _spoken(history: object, author_of: Callable[[str], Mapping[str, Any] | None]) -> list[Turn]:
    """The turns of a conversation that was written into a prompt. They weigh nothing: the prompt is measured."""
    if not isinstance(history, str):
        return []
    parts = _SPOKEN.split(history)[1:]
    turns = []
    for role, text in zip(parts[::2], parts[1::2], strict=True):
        turn = Turn(role_of(role), text.strip(), extra_chars=-size_of(text.strip()))
        tag = author_of(turn.text) if turn.role == "assistant" else None
        turns.append(turn._replace(candidate=tag["candidate"], turn=tag["turn"]) if tag else turn)
    return turns


def settled(prompt: Any) -> Any:
    """The prompt, with functions in it that run once, however often it is formatted."""
    if isinstance(prompt, SelectorPromptTemplate):
        conditionals = [(condition, settled(inner)) for condition, inner in prompt.conditionals or []]
        inner = settled(prompt.default_template)
        if inner is prompt.default_template and conditionals == list(prompt.conditionals or []):
            return prompt
        return prompt.model_copy(update={"default_template": inner, "conditionals": conditionals})
    mappings = getattr(prompt, "function_mappings", None)
    if not mappings:
        return prompt
    return prompt.model_copy(update={"function_mappings": {name: _once(act) for name, act in mappings.items()}})


def _once(act: Callable[..., Any]) -> Callable[..., Any]:
    kept: list[Any] = []

    @functools.wraps(act)
    def value(**arguments: Any) -> Any:
        if not kept:
            kept.append(act(**arguments))
        return kept[0]

    return value


def as_messages(text: str) -> list[ChatMessage]:
    """A completion's prompt as the one message that it is."""
    return [ChatMessage(role="user", content=text)]
