"""What a router becomes when something is bound to it: it must keep what was bound or configured before."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.configurable import (
    DynamicRunnable,
    RunnableConfigurableAlternatives,
    RunnableConfigurableFields,
)

METHODS = ("function_calling", "json_mode", "json_schema")


class StructuredChat(RunnableBinding[Any, Any]):  # type: ignore[no-redef]  # its field kwargs, to the plugin
    """A router with an output schema. Like every chat model's, it takes no tools any more."""

    def __getattr__(self, name: str) -> Any:
        if name in ("bind_tools", "with_structured_output"):
            raise AttributeError(f"{name} after with_structured_output: bind tools first, or give them in one call.")
        return super().__getattr__(name)


def check_schema(schema: Any, options: dict[str, Any]) -> None:
    """Refuse at once what every candidate would refuse at each call.

    Raises:
        ValueError: no schema, or a method that nobody has.
    """
    if schema is not None and not isinstance(schema, (dict, type)):
        raise ValueError(f"Expected a schema as a class or a dictionary, got a {type(schema).__name__}.")
    method = options.get("method")
    if method is not None and method not in METHODS:
        raise ValueError(f"Unrecognized method {method!r}: expected one of {', '.join(METHODS)}.")


class _Late(DynamicRunnable):  # type: ignore[type-arg]  # parametrised, pydantic takes no router for its default
    """A configurable router on which tools or a schema are bound once a call's configuration is known."""

    changes: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = ()

    def _prepare(self, config: RunnableConfig | None = None) -> tuple[Runnable[Any, Any], RunnableConfig]:
        runnable, settled = super()._prepare(config)  # type: ignore[safe-super]  # of the sibling class
        while isinstance(runnable, DynamicRunnable):
            runnable, settled = runnable.prepare(settled)
        for method, arguments, keywords in self.changes:
            runnable = getattr(runnable, method)(*arguments, **keywords)
        return runnable, settled

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        """The same with tools."""
        return self._changed("bind_tools", tools, **options)

    def with_structured_output(self, schema: Any, **options: Any) -> Any:
        """The same with an output schema."""
        return self._changed("with_structured_output", schema, **options)

    def _changed(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return self.model_copy(update={"changes": (*self.changes, (method, arguments, keywords))})


class ConfigurableChat(_Late, RunnableConfigurableFields):  # type: ignore[type-arg]  # as _Late
    """A router with configurable fields."""


class AlternativeChat(_Late, RunnableConfigurableAlternatives):  # type: ignore[type-arg]  # as _Late
    """A router with alternatives."""
