"""What a newcomer types: this year's names, no keys, no training."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from langchain_core.language_models import FakeListChatModel

from langchain_msat import ChatMSAT
from msat_core import ConfigurationError, RoutingPolicy, Zoo, ZooError, pretrained

NAMES = ("gpt-5-mini", "claude-sonnet-4.5", "qwen3-30b-a3b")


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return Zoo.load(pretrained.ZOO)


def chat_over(*names: str, **fields: object) -> ChatMSAT:
    return ChatMSAT.from_pretrained({name: FakeListChatModel(responses=[f"{name} here"]) for name in names}, **fields)


def test_who_why_what_it_costs_and_what_is_saved() -> None:
    chat = chat_over(*NAMES, policy=RoutingPolicy(objective="target", target=0.3))
    answer = chat.invoke("How many prime numbers are there below one hundred?")
    tag = answer.response_metadata["msat"]
    assert answer.content == f"{tag['candidate']} here"
    assert set(tag["scores"]) == set(NAMES)
    assert 0 < tag["score"] < 1 and tag["reason"]
    decision = chat.router.route("How many prime numbers are there below one hundred?")
    known = {name: cost for name, cost in decision.costs_usd.items() if cost is not None}
    prices = {one.name: one.usd_per_mtok_out for one in chat.router.zoo}
    assert all(price is not None for price in prices.values())
    assert set(known) | set(decision.list_usd) == set(
        prices
    )  # an expected cost, or the list price where output is unknown


def test_only_the_candidates_given_are_scored() -> None:
    chat = chat_over(*NAMES)
    assert len(chat.router.zoo) == len(NAMES)


def test_strings_for_init_chat_model_may_stand_alone(zoo: Zoo) -> None:
    chat = ChatMSAT.from_pretrained(["openai:gpt-5-mini", "anthropic:claude-sonnet-4.5"])
    assert chat.router.zoo.names == (zoo["gpt-5-mini"].name, zoo["claude-sonnet-4.5"].name)
    for wrong in ("openai:gpt-5-mini", [FakeListChatModel(responses=["x"])], FakeListChatModel(responses=["x"])):
        with pytest.raises(ConfigurationError, match="a chat model alone does not say which candidate it is"):
            ChatMSAT.from_pretrained(wrong)  # type: ignore[arg-type]


def test_an_unknown_name_is_met_with_near_ones_and_two_ways_to_add_it() -> None:
    with pytest.raises(ZooError, match=r"did you mean .*gpt-5") as caught:
        chat_over("gpt-5-mni")
    assert "profile run" in str(caught.value) and "profile from-scores" in str(caught.value)


def test_this_year_is_there(zoo: Zoo) -> None:
    recent = [one for one in zoo if one.released is not None and one.released.year >= 2025]
    assert len(zoo) >= 120 and len(recent) >= 80
    without = [one for one in zoo if not one.has_results]
    assert without and all(one.profile.provenance.borrowed_from for one in without)


def test_every_price_of_the_library_is_the_librarys_at_its_date(zoo: Zoo) -> None:
    """Prices shipped from the library are what the installed library says for the day on which they were read."""
    from msat_core.price_library import library_facts, library_version

    checked = 0
    for one in zoo:
        fact = one.facts.get("usd_per_mtok_in")
        if one.tariff is None or fact is None or fact.source != "library":
            continue
        if not fact.note.startswith(library_version()):
            pytest.skip(f"the shipped prices are of {fact.note}")
        at = datetime.fromisoformat(fact.date).replace(tzinfo=timezone.utc)
        found = library_facts(one.tariff.model, provider=one.tariff.provider, at=at)
        assert found is not None, one.name
        for field in ("usd_per_mtok_in", "usd_per_mtok_out"):
            assert found.values.get(field) == getattr(one, field), (one.name, field)
        checked += 1
    assert checked >= 150
