"""The runnables behind the candidates: chat models, bindings and fallbacks around them, or names to resolve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableConfig,
    RunnableParallel,
    RunnablePick,
    RunnableSequence,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.configurable import DynamicRunnable, RunnableConfigurableAlternatives
from langchain_core.runnables.fallbacks import RunnableWithFallbacks

from langchain_msat.readable_messages import Reader
from msat_core import ConfigurationError, ModelFacts, Router, Zoo, common_abilities

ChatRunnable = Runnable[Any, Any]

_GIVE_REASONS = ("anthropic", "azure", "google", "mistral", "openai")  # why an answer ended is in each answer of theirs
_FACTS = {
    "max_input_tokens": "context_window",
    "max_output_tokens": "max_output_tokens",
    "tool_calling": "tools",
    "reasoning_output": "reasoning",
}
_INPUTS = {"image_inputs": "image", "audio_inputs": "audio", "video_inputs": "video", "pdf_inputs": "file"}
_WANTS_A_MAPPING = (BasePromptTemplate, RunnableAssign, RunnablePick)


class CandidateModels:
    """Candidates by name; ``provider:model`` strings become chat models on first use.

    Args:
        models: a chat model, something around one (a binding, fallbacks, configurable fields, a sequence that takes
            messages and ends in one), or a string for ``langchain.chat_models.init_chat_model``, by candidate name.
        settings: fields of a chat model (a cache, say) that hold for each that has not set its own.
    """

    def __init__(self, models: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        if not models:
            raise ConfigurationError("ChatMSAT needs at least one candidate: {name: chat model}.")
        self._settings = dict(settings or {})
        self._models: dict[str, str | ChatRunnable] = {
            name: model if isinstance(model, str) else self._set(_checked(name, model))
            for name, model in models.items()
        }
        self._readers: dict[str, Reader] = {}
        self._give_reasons: set[str] = set()
        self._facts: ModelFacts | None = None

    def __getitem__(self, name: str) -> ChatRunnable:
        model = self._models[name]
        if isinstance(model, str):  # two threads may both resolve it: the models are alike, the last one stays
            model = self._models[name] = self._set(_resolve(name, model))
            self._facts = None
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def _set(self, model: ChatRunnable) -> ChatRunnable:
        return rewrapped(model, self._with_settings) if self._settings else model

    def _with_settings(self, leaf: Any) -> ChatRunnable:
        set_fields: set[str] = getattr(leaf, "model_fields_set", set())
        fields = getattr(type(leaf), "model_fields", {})
        new = {key: value for key, value in self._settings.items() if key in fields and key not in set_fields}
        changed: ChatRunnable = leaf.model_copy(update=new) if new else leaf
        return changed

    def leaves(self) -> list[Any]:
        """The chat models of all candidates; what is still to be resolved is resolved."""
        return [leaf for name in self._models for leaf in leaves(self[name])]

    def known(self) -> dict[str, list[Any]]:
        """The chat models of each candidate; none for a string that is still to be resolved."""
        return {name: [] if isinstance(m, str) else leaves(m) for name, m in self._models.items()}

    def reader(self, name: str) -> Reader:
        """What a candidate's chat model says of its provider."""
        if name not in self._readers:
            self._readers[name] = Reader(name, _provider(leaves(self[name])[0]))
        return self._readers[name]

    def provider(self) -> str | None:
        """The provider that all chat models share; None where they differ, or one is still to be resolved."""
        providers = {_provider(leaf) for of in self.known().values() for leaf in of or [None]}
        return next(iter(providers)) or None if len(providers) == 1 else None

    def model_name(self) -> str | None:
        """The name that all chat models share, else that of a Gemini before 3 among them, else None.

        By that name agents know that it cannot take tools and a schema together: what they then do suits all.
        """
        names = {_model_name(leaf) for of in self.known().values() for leaf in of or [None]}
        early = sorted(name for name in names if "gemini" in name.lower() and "gemini-3" not in name.lower())
        return (next(iter(names)) if len(names) == 1 else next(iter(early), "")) or None

    def lacks_reason(self, name: str, reason: str | None) -> bool:
        """Whether a stream that ended for this reason, or for none, lacks one that its provider would have given."""
        if reason is not None:
            self._give_reasons.add(name)
            return False
        return name in self._give_reasons or any(provider in self.reader(name).provider for provider in _GIVE_REASONS)

    def profiles(self) -> dict[str, dict[str, Any]]:
        """What each candidate's chat model says of itself; empty where it says nothing."""
        return {
            name: common_abilities([_profile(leaf) for leaf in of]) if of else {} for name, of in self.known().items()
        }

    def facts(self) -> ModelFacts:
        """What the chat models state of themselves, for the policy's limits."""
        if self._facts is None:
            facts = {name: _facts_in(profile) for name, profile in self.profiles().items()}
            self._facts = ModelFacts(facts, note="the chat model's profile")
        return self._facts

    def common_profile(self) -> dict[str, Any] | None:
        """What every candidate can do; None if one says nothing, or is still to be resolved."""
        of = list(self.profiles().values())
        return common_abilities(of) if all(of) else None

    def widest_profile(self) -> dict[str, Any] | None:
        """What some candidate can do: flags that any has and the highest of each limit; None if nobody says."""
        widest: dict[str, Any] = {}
        for profile in self.profiles().values():
            for key, value in profile.items():
                most = widest.get(key)
                widest[key] = max(most, value) if isinstance(value, (int, float)) and most is not None else value
        return widest or None

    def with_tools(self) -> frozenset[str]:
        """Names of the candidates whose chat models can bind tools; providers' models, still to be resolved, do."""
        return frozenset(name for name, of in self.known().items() if all(map(_binds_tools, of)))


def _checked(name: str, model: Any) -> ChatRunnable:
    """The model, if it takes a list of messages and gives one; said now rather than at each call."""
    if not isinstance(model, Runnable):
        raise ConfigurationError(
            f"Candidate {name!r} is a {type(model).__name__}: expected a chat model, a binding of one, or a "
            "string such as 'openai:gpt-4o'."
        )
    steps = model.steps if isinstance(model, RunnableSequence) else [model]
    if isinstance(steps[0], _WANTS_A_MAPPING) or type(steps[0]) is RunnableParallel:
        raise ConfigurationError(
            f"Candidate {name!r} begins with a {type(steps[0]).__name__}, which wants a mapping: a candidate is given "
            "a list of messages. Put RunnableLambda(lambda messages: {…}) before it."
        )
    for leaf in leaves(model):
        if isinstance(leaf, (BaseOutputParser, BaseLLM, BasePromptTemplate)):
            raise ConfigurationError(
                f"Candidate {name!r} ends in a {type(leaf).__name__}, which gives no chat message: "
                "put what follows the chat model behind ChatMSAT."
            )
    return model


def _resolve(name: str, model: str) -> ChatRunnable:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError:
        raise ConfigurationError(
            f"Candidate {name!r} is given as {model!r}, which needs langchain: `pip install langchain`, "
            "or give a chat model."
        ) from None
    return init_chat_model(model)


def _profile(leaf: Any) -> dict[str, Any]:
    return dict(getattr(leaf, "profile", None) or {})


def _facts_in(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A LangChain profile's statements in the zoo's words; what it does not state is left out."""
    facts = {ours: profile[theirs] for theirs, ours in _FACTS.items() if profile.get(theirs) is not None}
    stated = {medium: profile[flag] for flag, medium in _INPUTS.items() if profile.get(flag) is not None}
    if stated:
        facts["modalities"] = frozenset({"text", *(medium for medium, takes in stated.items() if takes)})
    return facts


def _model_name(leaf: Any) -> str:
    names = (getattr(leaf, field, None) for field in ("model_name", "model", "model_id"))
    return next((name for name in names if isinstance(name, str)), "")


def _provider(leaf: Any) -> str:
    if not isinstance(leaf, BaseChatModel):
        return ""
    return str(leaf._get_ls_params().get("ls_provider") or "").lower()


def _binds_tools(leaf: Any) -> bool:
    binder = getattr(leaf, "bind_tools", None)
    return binder is not None and getattr(binder, "__func__", None) is not BaseChatModel.bind_tools


def leaves(runnable: ChatRunnable) -> list[Any]:
    """The chat models inside bindings, fallbacks, configurable fields and sequences."""
    if isinstance(runnable, RunnableBindingBase):
        return leaves(runnable.bound)
    if isinstance(runnable, RunnableWithFallbacks):
        return [leaf for inner in runnable.runnables for leaf in leaves(inner)]
    if isinstance(runnable, RunnableConfigurableAlternatives):
        alternatives = [inner for inner in runnable.alternatives.values() if isinstance(inner, Runnable)]
        return [leaf for inner in (runnable.default, *alternatives) for leaf in leaves(inner)]
    if isinstance(runnable, DynamicRunnable):
        return leaves(runnable.default)
    if isinstance(runnable, RunnableSequence):
        return leaves(runnable.last)
    return [runnable]


def rewrapped(
    runnable: ChatRunnable,
    change: Callable[[Any], ChatRunnable],
    config: RunnableConfig | None = None,
    over: frozenset[str] = frozenset(),
) -> ChatRunnable:
    """The runnable with each chat model changed, inside the same bindings, fallbacks, fields and sequences.

    Calling ``bind_tools`` on a binding would reach the bound model past it, and lose what was bound.

    Args:
        runnable: a candidate.
        change: of a chat model.
        config: a call's; with it, configurable fields and alternatives are settled.
        over: keywords that bindings give up, because the caller has given them.
    """
    if isinstance(runnable, RunnableBindingBase):
        inner = merge_configs(runnable.config, config) if config is not None else None
        kept = {key: value for key, value in runnable.kwargs.items() if key not in over}
        return runnable.model_copy(update={"bound": rewrapped(runnable.bound, change, inner, over), "kwargs": kept})
    if isinstance(runnable, RunnableWithFallbacks):
        first, *rest = [rewrapped(inner, change, config, over) for inner in runnable.runnables]
        return runnable.model_copy(update={"runnable": first, "fallbacks": rest})
    if isinstance(runnable, DynamicRunnable):
        if config is None:
            return runnable.model_copy(update={"default": rewrapped(runnable.default, change)})
        return rewrapped(runnable.prepare(config)[0], change, config, over)
    if isinstance(runnable, RunnableSequence):
        last = rewrapped(runnable.last, change, config, over)
        return RunnableSequence(*runnable.steps[:-1], last, name=runnable.name)
    return change(runnable)


def by_name(models: Any) -> dict[str, str]:
    """Strings for ``init_chat_model``, each as the name of the candidate too."""
    if isinstance(models, str) or not isinstance(models, Sequence) or not all(isinstance(m, str) for m in models):
        raise ConfigurationError(
            "Expected {name: chat model}, or a list of strings such as 'openai:gpt-5-mini': a chat model alone does "
            "not say which candidate it is."
        )
    return {name: name for name in models}


def router_over(candidates: Mapping[str, Any], zoo: Any = None) -> Router:
    """The shipped scorer over these candidates alone: nobody else has to be scored."""
    if zoo is None:
        return Router.from_pretrained(zoo=list(candidates))
    if isinstance(zoo, Zoo):
        return Router.from_pretrained(zoo=_among(zoo, candidates))
    router = Router.from_pretrained(zoo=zoo)  # of a file or a trial's folder, with its exams and its policy
    router.zoo = _among(router.zoo, candidates)
    return router


def _among(zoo: Zoo, names: Iterable[str]) -> Zoo:
    return zoo.subset(dict.fromkeys(zoo[name].name for name in names))
