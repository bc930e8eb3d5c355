"""A Runnable from a prompt to a candidate's name, for code that dispatches by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_msat.messages import turns_of
from msat_core.routing.dispatch import adecide, decide, read_conversation

if TYPE_CHECKING:
    from msat_core.routing.policy import RoutingDecision, RoutingPolicy
    from msat_core.routing.router import Router


def candidate_selector(
    router: Router, *, among: Sequence[str] | None = None, policy: RoutingPolicy | None = None
) -> Runnable[Any, str]:
    """A Runnable that names the candidate for a text, a list of messages or a prompt value.

    For example, to set the model of ``init_chat_model(configurable_fields="any")``::

        chosen = candidate_selector(router).invoke(text)
        model.invoke(text, config={"configurable": {"model": chosen}})

    Args:
        router: scores and chooses.
        among: names or aliases that may be chosen; None for the whole zoo. The name comes back as it
            stands here.
        policy: in place of the router's.
    """
    names = frozenset(among) if among is not None else None
    key_of = {router.zoo[name].name: name for name in among or ()}

    def _parts(given: Any) -> tuple[Any, Any]:
        if isinstance(given, PromptValue):
            messages = given.to_messages()
        else:
            from langchain_core.messages import HumanMessage, convert_to_messages

            messages = [HumanMessage(given)] if isinstance(given, str) else convert_to_messages(given)
        reading = read_conversation(turns_of(messages))
        return reading, reading.request(tools=False, among=names)

    def _named(decision: RoutingDecision) -> str:
        return key_of.get(decision.candidate, decision.candidate)

    def choose(given: Any) -> str:
        reading, request = _parts(given)
        return _named(decide(router, reading, request, policy=policy))

    async def achoose(given: Any) -> str:
        reading, request = _parts(given)
        return _named(await adecide(router, reading, request, policy=policy))

    return RunnableLambda(choose, afunc=achoose, name="candidate_selector")
