"""Routers in routers, in batches, in streams and in fallbacks: what a failure, a limit or a count means there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from pydantic import BaseModel
from rule_chat import HAS_V3, RuleChat
from support import profile, table_router

from langchain_msat import ChatMSAT
from msat_core import Candidate
from msat_core.errors import ZooError
from msat_core.routing.fallback import Fallback

Q = {"to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2}}


class RateLimitError(Exception):
    """As a provider's."""

    status_code = 429


class Doubled(BaseModel):
    """A number."""

    number: int


@tool
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


def chat(fields: dict[str, Any] | None = None, **models: Any) -> ChatMSAT:
    named = {name: models.get(name) or RuleChat(name=name) for name in ("good", "fair", "poor")}
    return ChatMSAT(candidates=named, router=table_router(Q), **(fields or {}))


def nested(**models: Any) -> tuple[ChatMSAT, ChatMSAT]:
    """A router whose best candidate is a router."""
    inner = chat({"prefix": "inner"}, **models)
    return ChatMSAT({"fair": inner, "poor": RuleChat(name="spare")}, router=table_router(Q)), inner


def by(message: Any) -> list[str]:
    """Who answered, from the outermost router inwards."""
    tag, found = message.response_metadata.get("msat"), []
    while tag:
        found.append(tag["candidate"])
        tag = tag.get("inner")
    return found


async def used(router: Any, how: str) -> tuple[list[str], dict[str, Any]]:
    handler = UsageMetadataCallbackHandler()
    config: RunnableConfig = {"callbacks": [handler]}
    if how == "invoke":
        answer = router.invoke("to fair", config)
    elif how == "ainvoke":
        answer = await router.ainvoke("to fair", config)
    elif how == "batch":
        (answer,) = router.batch(["to fair"], config)
    elif how == "stream":
        first, *others = list(router.stream("to fair", config))
        answer = sum(others, first)
    elif how == "astream":
        first, *others = [chunk async for chunk in router.astream("to fair", config)]
        answer = sum(others, first)
    elif how == "v3":
        answer = router.stream_events("to fair", config, version="v3").output
    else:
        answer = create_agent(router, []).invoke({"messages": [HumanMessage("to fair")]}, config)["messages"][-1]
    return by(answer), handler.usage_metadata


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "batch", "stream", "astream", *["v3"][:HAS_V3], "agent"])
async def test_a_router_in_a_router_counts_usage_once(how: str) -> None:
    outer, _ = nested()
    plain = UsageMetadataCallbackHandler()
    RuleChat(name="fair").invoke("to fair", {"callbacks": [plain]})
    assert await used(outer, how) == (["fair", "fair"], plain.usage_metadata)


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_where_all_of_an_inner_router_fail_the_outer_one_goes_on(how: str) -> None:
    down = RateLimitError("slow down")
    outer, _ = nested(**{name: RuleChat(name=name, fails=down) for name in ("good", "fair", "poor")})
    assert (await used(outer, how))[0] == ["poor"]
    limited: Any = {n: RuleChat(name=n, fails=down) for n in ("good", "fair", "poor")}
    alone = ChatMSAT({"fair": chat(**limited)}, router=table_router(Q))
    with pytest.raises(RateLimitError):
        await used(alone, how)


def test_tools_and_schemas_pass_through_both_routers() -> None:
    outer, inner = nested()
    answer = outer.bind_tools([double], tool_choice="any").invoke("to fair 21")
    assert answer.tool_calls[0]["name"] == "double"
    (_, given) = next(model for model in inner.candidates.values() if model.seen).seen[-1]
    assert given["tool_choice"] == "any" and len(given["tools"]) == 1
    assert outer.with_structured_output(Doubled).invoke("to fair 21") == Doubled(number=21)


async def test_a_batch_keeps_each_inputs_own_failure() -> None:
    router = chat(
        fair=RuleChat(name="fair", fails=RateLimitError("slow down")), fields={"fallback": Fallback(max_attempts=1)}
    )
    configs: Any = [{}, {"configurable": {"msat_candidate": "nobody"}}, {"configurable": {"msat_candidate": "poor"}}]
    for found in (
        router.batch(["to fair"] * 3, configs, return_exceptions=True),
        await router.abatch(["to fair"] * 3, configs, return_exceptions=True),
    ):
        kinds: list[Any] = [type(one) for one in found]
        assert kinds == [RateLimitError, ZooError, AIMessage]


async def test_fallbacks_around_a_bound_router_see_the_type() -> None:
    limited: Any = {name: RuleChat(name=name, fails=RateLimitError("slow down")) for name in ("good", "fair", "poor")}
    failing = chat(**limited)
    spare = RuleChat(name="spare")
    for bound, other in (
        (failing.bind_tools([double]), spare.bind_tools([double])),
        (failing.with_structured_output(Doubled), spare.with_structured_output(Doubled)),
    ):
        both: Any = bound.with_fallbacks([other], exceptions_to_handle=(RateLimitError,))
        for answer in (both.invoke("to fair 21"), await both.ainvoke("to fair 21")):
            assert answer == Doubled(number=21) or answer.tool_calls[0]["args"] == {"number": 21}
        with pytest.raises(RateLimitError):
            bound.with_fallbacks([other], exceptions_to_handle=(KeyError,)).invoke("to fair 21")


async def test_a_stream_that_is_left_closes_the_candidates() -> None:
    closed = []

    class Closing(RuleChat):
        async def _astream(self, *args: Any, **kwargs: Any) -> Any:
            try:
                async for chunk in super()._astream(*args, **kwargs):
                    yield chunk
                    await asyncio.sleep(0)
            finally:
                closed.append(self.name)

    outer, _ = nested(fair=Closing(name="fair"))
    stream = outer.astream("to fair")
    assert (await anext(stream)).content == "fair:"
    await stream.aclose()  # type: ignore[attr-defined]
    assert closed == ["fair"]


def test_an_image_passes_through_both_routers_to_who_can_see_it() -> None:
    blind, sighted = ({"image_inputs": sees, "max_input_tokens": 100_000} for sees in (False, True))
    outer, inner = nested(
        fair=RuleChat(name="fair", profile=blind),
        good=RuleChat(name="good", profile=blind),
        poor=RuleChat(name="poor", profile=sighted),
    )
    assert inner.profile is not None and inner.profile["image_inputs"] is False  # what every candidate can do
    wide = ChatMSAT(inner.candidates, router=table_router(Q), abilities="some", prefix="inner")
    outer = ChatMSAT({"fair": wide, "good": RuleChat(name="blind", profile=blind)}, router=table_router(Q))
    image = HumanMessage([{"type": "text", "text": "to fair"}, {"type": "image", "url": "https://example.org/x.png"}])
    assert by(outer.invoke([image])) == ["fair", "poor"]


def test_names_and_providers_come_out_as_for_the_least_able_candidate() -> None:
    class Named(RuleChat):
        model: str = ""
        provider: str = ""

        def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
            return {**super()._get_ls_params(stop=stop, **kwargs), "ls_provider": self.provider}

    def over(*models: tuple[str, str]) -> ChatMSAT:
        names = ("good", "fair", "poor")
        made = {n: Named(name=n, model=m, provider=p) for n, (m, p) in zip(names, models, strict=False)}
        return ChatMSAT(made, router=table_router(Q))

    alike = over(("gpt-5", "openai"), ("gpt-5", "openai"))
    assert alike.model_name == "gpt-5" and alike._get_ls_params()["ls_provider"] == "openai"
    mixed = over(("gpt-5", "openai"), ("gemini-2.5-pro", "google_genai"), ("gemini-3-pro", "google_genai"))
    assert mixed.model_name == "gemini-2.5-pro"  # which cannot take tools and a schema together
    assert mixed._get_ls_params()["ls_provider"] == "msat"
    assert over(("gpt-5", "openai"), ("grok-4", "xai")).model_name is None
    late = ChatMSAT(
        {"good": Named(name="good", model="gpt-5", provider="openai"), "fair": "anthropic:claude-opus-4.8"},
        router=table_router(Q),
    )
    assert late.model_name is None and late._get_ls_params()["ls_provider"] == "msat"


def test_an_image_goes_to_nobody_who_is_known_not_to_see_and_last_to_the_unknown() -> None:
    zoo = [
        Candidate(profile=profile("good", 0.8), modalities=frozenset({"text"})),
        Candidate(profile=profile("fair", 0.6)),
        Candidate(profile=profile("poor", 0.2), modalities=frozenset({"text", "image"})),
    ]
    models = {candidate.name: RuleChat(name=candidate.name) for candidate in zoo}
    image = [HumanMessage([{"type": "text", "text": "What?"}, {"type": "image", "url": "https://example.org/x.png"}])]
    router = ChatMSAT(models, router=table_router({}, candidates=zoo))
    answer = router.invoke(image)
    assert by(answer) == ["poor"] and "unknown" in answer.response_metadata["msat"]["reason"]
    strict = router.invoke(image, {"configurable": {"msat_policy": {"unknown_modalities": "exclude", "deny": []}}})
    assert by(strict) == ["poor"]
    unknown = ChatMSAT({n: m for n, m in models.items() if n != "poor"}, router=table_router({}, candidates=zoo))
    answer = unknown.invoke(image)  # nobody is known to see it: said, and asked of the one that may
    assert by(answer) == ["fair"] and "is unknown" in answer.response_metadata["msat"]["reason"]
