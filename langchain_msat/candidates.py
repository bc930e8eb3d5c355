"""The runnables behind the candidates: chat models, bindings and fallbacks around them, or names to resolve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.fallbacks import RunnableWithFallbacks

from msat_core import ConfigurationError, common_abilities

ChatRunnable = Runnable[Any, Any]


class CandidateModels:
    """Candidates by name; ``provider:model`` strings become chat models on first use.

    Args:
        models: a chat model, a binding or fallbacks of chat models, or a string for
            ``langchain.chat_models.init_chat_model``, by candidate name.
    """

    def __init__(self, models: Mapping[str, Any]) -> None:
        if not models:
            raise ConfigurationError("ChatMSAT needs at least one candidate: {name: chat model}.")
        for name, model in models.items():
            if not isinstance(model, (str, Runnable)):
                raise ConfigurationError(
                    f"Candidate {name!r} is a {type(model).__name__}: expected a chat model, a binding of one, or a "
                    "string such as 'openai:gpt-4o'."
                )
        self._models: dict[str, str | ChatRunnable] = dict(models)

    def __getitem__(self, name: str) -> ChatRunnable:
        model = self._models[name]
        if isinstance(model, str):  # two threads may both resolve it: the models are alike, the last one stays
            model = self._models[name] = _resolve(name, model)
        return model

    def common_profile(self) -> dict[str, Any] | None:
        """The intersection of the candidates' profiles; None if one says nothing, or is still to be resolved."""
        known = [leaves(model) for model in self._models.values() if not isinstance(model, str)]
        profiles = [dict(getattr(leaf, "profile", None) or {}) for of_one in known for leaf in of_one]
        return common_abilities(profiles) if len(known) == len(self._models) and all(profiles) else None

    def with_tools(self) -> frozenset[str]:
        """Names of the candidates whose chat models can bind tools; providers' models, still to be resolved, do."""
        return frozenset(name for name, model in self._models.items() if isinstance(model, str) or _binds_tools(model))


def _resolve(name: str, model: str) -> ChatRunnable:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError:
        raise ConfigurationError(
            f"Candidate {name!r} is given as {model!r}, which needs langchain: `pip install langchain`, "
            "or give a chat model."
        ) from None
    return init_chat_model(model)


def _binds_tools(model: ChatRunnable) -> bool:
    binders = [getattr(leaf, "bind_tools", None) for leaf in leaves(model)]
    return all(binder and getattr(binder, "__func__", None) is not BaseChatModel.bind_tools for binder in binders)


def leaves(runnable: ChatRunnable) -> list[ChatRunnable]:
    """What bindings and fallbacks are wrapped around."""
    if isinstance(runnable, RunnableBindingBase):
        return leaves(runnable.bound)
    if isinstance(runnable, RunnableWithFallbacks):
        return [leaf for inner in runnable.runnables for leaf in leaves(inner)]
    return [runnable]


def rewrapped(runnable: ChatRunnable, change: Callable[[Any], ChatRunnable]) -> ChatRunnable:
    """The runnable with each chat model changed, inside the same bindings and fallbacks.

    Calling ``bind_tools`` on a binding would reach the bound model past it, and lose what was bound.
    """
    if isinstance(runnable, RunnableBindingBase):
        return runnable.model_copy(update={"bound": rewrapped(runnable.bound, change)})
    if isinstance(runnable, RunnableWithFallbacks):
        inner = [rewrapped(one, change) for one in runnable.fallbacks]
        return runnable.model_copy(update={"runnable": rewrapped(runnable.runnable, change), "fallbacks": inner})
    return change(runnable)
