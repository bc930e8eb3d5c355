"""A Runnable from a prompt to a candidate's name, for code that dispatches by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableLambda

from langchain_msat.messages import messages_of, turns_of
from msat_core import RoutingAsk, names_in_zoo

if TYPE_CHECKING:
    from msat_core import Router, RoutingDecision, RoutingPolicy


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
    key_of = names_in_zoo(router.zoo, among or ())

    def ask(prompt: Any) -> RoutingAsk:
        return RoutingAsk.of(router, turns_of(messages_of(prompt)), among=among, policy=policy)

    def named(decision: RoutingDecision) -> str:
        return key_of.get(decision.candidate, decision.candidate)

    def choose(prompt: Any) -> str:
        return named(ask(prompt).route())

    async def achoose(prompt: Any) -> str:
        return named(await ask(prompt).aroute())

    return RunnableLambda(choose, afunc=achoose, name="candidate_selector")
