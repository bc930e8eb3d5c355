"""Prompts: what is scored is the question inside, what is measured are the messages that will be sent."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar, cast

from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import PydanticProgramMode, TokenAsyncGen, TokenGen
from pydantic import BaseModel

from llamaindex_msat.endpoints import RoutedEndpoints
from llamaindex_msat.messages import turns_of
from llamaindex_msat.questions import as_messages, settled, unprompted
from llamaindex_msat.routed_call import RoutedCall
from llamaindex_msat.setup import Wishes

Model = TypeVar("Model", bound=BaseModel)


class RoutedPredictions(RoutedEndpoints):
    """Predictions from prompts, plain and structured, each in the chosen candidate's own way."""

    def _prompt_call(self, prompt: Any, arguments: dict[str, Any], wishes: Wishes, extra_chars: int = 0) -> RoutedCall:
        setup = self._setup
        if not isinstance(prompt, BasePromptTemplate):
            return RoutedCall(setup, as_messages(str(prompt)), wishes, extra_chars=extra_chars)
        messages = self._get_messages(prompt, **arguments)
        turns = unprompted(turns_of(messages, setup.authors.of), prompt, arguments, setup.authors.of_text)
        systems = (getattr(candidate, "system_prompt", None) or "" for candidate in setup.candidates.llms.values())
        extra_chars += max(map(len, systems), default=0)
        tools = self.pydantic_program_mode is PydanticProgramMode.FUNCTION and extra_chars > 0
        return RoutedCall(setup, messages, wishes, turns=turns, tools=tools, extra_chars=extra_chars)

    # --- plain ---

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """The chosen candidate's prediction."""
        wishes, prompt = Wishes.taken_from(prompt_args), settled(prompt)
        call = self._prompt_call(prompt, prompt_args, wishes)
        return cast("str", call.answer(lambda to: to.llm.predict(prompt, **prompt_args)))

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Like :meth:`predict`."""
        wishes, prompt = Wishes.taken_from(prompt_args), settled(prompt)
        call = self._prompt_call(prompt, prompt_args, wishes)
        return cast("str", await call.aanswer(lambda to: to.llm.apredict(prompt, **prompt_args)))

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """The chosen candidate's tokens."""
        wishes, prompt = Wishes.taken_from(prompt_args), settled(prompt)
        call = self._prompt_call(prompt, prompt_args, wishes)
        return call.chunks(lambda to: to.llm.stream(prompt, **prompt_args))

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Like :meth:`stream`."""
        wishes, prompt = Wishes.taken_from(prompt_args), settled(prompt)
        call = self._prompt_call(prompt, prompt_args, wishes)
        return await call.achunks(lambda to: to.llm.astream(prompt, **prompt_args))

    # --- structured ---

    def structured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Model:
        """The chosen candidate's structured prediction, in its own way."""
        asked = _Structured(self, output_cls, prompt, llm_kwargs, prompt_args)
        return cast("Model", asked.call.answer(lambda to: to.llm.structured_predict(**asked.arguments())))

    async def astructured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Model:
        """Like :meth:`structured_predict`."""
        asked = _Structured(self, output_cls, prompt, llm_kwargs, prompt_args)
        return cast("Model", await asked.call.aanswer(lambda to: to.llm.astructured_predict(**asked.arguments())))

    def stream_structured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Generator[Model | list[Model], None, None]:
        """The chosen candidate's partial objects."""
        asked = _Structured(self, output_cls, prompt, llm_kwargs, prompt_args)
        return asked.call.chunks(lambda to: to.llm.stream_structured_predict(**asked.arguments()))

    async def astream_structured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> AsyncGenerator[Model | list[Model], None]:
        """Like :meth:`stream_structured_predict`."""
        asked = _Structured(self, output_cls, prompt, llm_kwargs, prompt_args)
        return await asked.call.achunks(lambda to: to.llm.astream_structured_predict(**asked.arguments()))


class _Structured:
    """A structured prediction, for whichever candidate makes it."""

    def __init__(
        self,
        router: RoutedPredictions,
        output_cls: type[BaseModel],
        prompt: Any,
        llm_kwargs: dict[str, Any] | None,
        prompt_args: dict[str, Any],
    ) -> None:
        options = None if llm_kwargs is None else dict(llm_kwargs)
        wishes, prompt = Wishes.taken_from(prompt_args, options), settled(prompt)
        schema = len(json.dumps(output_cls.model_json_schema(), default=str))
        self.call = router._prompt_call(prompt, prompt_args, wishes, schema)
        self._fixed = {"output_cls": output_cls, "prompt": prompt, **prompt_args}
        self._options = options

    def arguments(self) -> dict[str, Any]:
        """Each time anew: programs take options out of what they are given."""
        return {**self._fixed, "llm_kwargs": None if self._options is None else dict(self._options)}
