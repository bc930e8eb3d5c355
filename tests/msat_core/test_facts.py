from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from support import profile

from msat_core import Candidate, ModelFacts, Zoo
from msat_core.documents import digest_of
from msat_core.errors import ConfigurationError, ZooError
from msat_core.facts import FIELDS
from msat_core.price_library import library_facts
from msat_core.price_tables import read_price_table
from msat_core.routing.cost import expected_costs

LIBRARY = "0.2.3"  # the library's version for which figures are written down below
AT = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
NAMES = ("gpt-5-mini", "claude-sonnet-4-5", "gemini-2.5-pro", "openrouter/qwen/qwen3-30b-a3b", "deepseek-v4-flash")

pinned = pytest.mark.skipif(genai_prices.__version__ != LIBRARY, reason=f"figures of genai-prices {LIBRARY}")


def candidate(name: str, **facts: object) -> Candidate:
    return Candidate(profile=profile(name), **facts)


def from_library(name: str, at: datetime = AT) -> Candidate:
    found = library_facts(name, at=at)
    assert found is not None
    return candidate(name).stated(
        found.values, source="library", on=at.date().isoformat(), note=found.note, tariff=found.tariff
    )


@pinned
def test_figures_of_one_version_and_instant() -> None:
    mini = from_library("gpt-5-mini")
    assert (mini.usd_per_mtok_in, mini.usd_per_mtok_out, mini.usd_per_mtok_cached_in) == (0.25, 2.0, 0.025)
    assert mini.context_window == 400_000
    assert mini.facts["usd_per_mtok_in"].model_dump() == {
        "source": "library", "date": "2026-11-25", "note": f"genai-prices {LIBRARY}: openai/gpt-5-mini",
    }  # fmt: skip
    assert mini.modalities is None  # the library says nothing of them


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hours", [0, 9, 15])
@pytest.mark.parametrize("chars", [400, 2_000_000])
def test_every_expected_price_is_the_calculators(name: str, hours: int, chars: int) -> None:
    """Also beyond the plain figures: at another time of day, another day, and in a dearer tier of long prompts."""
    at, one = AT + timedelta(days=40, hours=hours), from_library(name)
    [cost] = expected_costs([one], chars=chars, at=at, warm={name: 50})
    usage = genai_prices.Usage(input_tokens=chars // 4, cache_read_tokens=50, output_tokens=250)
    assert one.tariff is not None
    expected = genai_prices.calc_price(
        usage, one.tariff.model, provider_id=one.tariff.provider, genai_request_timestamp=at
    )
    assert cost.usd == pytest.approx(float(expected.total_price), rel=1e-9)


@pinned
def test_prices_that_are_not_in_force_yet_come_with_their_day() -> None:
    """Of every model in the library whose price will have changed: before, on the day and after."""
    early, late = datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2027, 1, 1, tzinfo=timezone.utc)
    n_changed = 0
    for seller in get_snapshot().providers:
        for model in seller.models:
            found = library_facts(model.id, provider=seller.id, at=early)
            if found is None or not {"usd_per_mtok_in", "usd_per_mtok_out"} <= found.values.keys():
                continue
            one = candidate("x").stated(found.values, source="library", on="2026-01-01", tariff=found.tariff)
            for at in (early, late):
                [cost] = expected_costs([one], chars=40_000, at=at)
                asked = {"provider_id": seller.id, "genai_request_timestamp": at}
                usage = genai_prices.Usage(input_tokens=10_000, output_tokens=250)
                price = genai_prices.calc_price(usage, model.id, **asked)  # type: ignore[call-overload]
                assert cost.usd == pytest.approx(float(price.total_price), rel=1e-9), (seller.id, model.id, at)
            n_changed += found.tariff.until is not None
    assert n_changed > 10


@pinned
def test_a_time_of_day_price_needs_the_instant() -> None:
    flash = from_library("deepseek-v4-flash")
    night, peak = AT.replace(hour=20), AT.replace(hour=2)
    [cheap], [dear] = (expected_costs([flash], chars=4000, at=at) for at in (night, peak))
    assert dear.usd == pytest.approx(2 * cheap.usd)  # type: ignore[operator]


def test_a_library_that_forgot_the_model_leaves_its_price_unknown() -> None:
    one = from_library("gpt-5-mini")
    assert one.tariff is not None
    gone = one.changed(tariff=one.tariff.model_copy(update={"model": "no-such-model", "until": date(2026, 12, 1)}))
    assert expected_costs([gone], chars=400, at=AT)[0].usd is not None
    assert expected_costs([gone], chars=400, at=AT + timedelta(days=30))[0].list_usd is None


def test_the_provider_is_part_of_an_open_models_price() -> None:
    assert library_facts("qwen3-30b-a3b", at=AT) is None
    one, other = (library_facts("qwen/qwen3-30b-a3b", provider=p, at=AT) for p in ("openrouter", "novita"))
    assert one is not None and "openrouter/qwen" in one.note
    assert other is None or "novita" in other.note
    by_langchain = library_facts("google_genai:gemini-2.5-pro", at=AT)
    assert by_langchain is not None and "google/gemini-2.5-pro" in by_langchain.note
    assert library_facts("ollama:llama3.2", at=AT) is None


@pinned
def test_a_borrowed_window_is_labelled() -> None:
    zoo = Zoo.of([profile("gemini-2.5-pro")])
    zoo.refresh(at=AT)
    fact = zoo["gemini-2.5-pro"].facts["context_window"]
    assert "window of openrouter, as google states none" in fact.note


def test_who_is_believed_before_whom() -> None:
    one = candidate("a").stated({"tools": True, "context_window": 128_000}, source="table", on="2026-01-01")
    one = one.stated({"context_window": 400_000}, source="library", on="2026-02-01")
    assert one.context_window == 128_000  # of two that differ, the smaller
    one = one.stated({"context_window": 90_000, "tools": False}, source="model", on="2026-03-01")
    assert (one.context_window, one.tools, one.facts["tools"].source) == (90_000, False, "model")
    one = one.stated({"tools": True}, source="table", on="2026-04-01")
    assert one.tools is False
    one = one.stated({"context_window": 500_000}, source="user", on="2026-05-01")
    one = one.stated({"context_window": 10}, source="model", on="2026-06-01")
    assert (one.context_window, one.facts["context_window"].source) == (500_000, "user")
    given = candidate("b", usd_per_mtok_in=1.0)  # figures that came with the candidate are the user's
    assert given.stated({"usd_per_mtok_in": 9.0}, source="library", on="2026-01-01").usd_per_mtok_in == 1.0
    with pytest.raises(ConfigurationError, match="'pirce' is no fact"):
        one.stated({"pirce": 1}, source="user", on="2026-01-01")


def test_the_users_price_is_not_mixed_with_a_list_price() -> None:
    zoo = Zoo.of([from_library("gpt-5-mini")])
    zoo.set("gpt-5-mini", usd_per_mtok_in=0.1, usd_per_mtok_out=1)
    changed = zoo["gpt-5-mini"]
    assert (changed.usd_per_mtok_cached_in, changed.tariff) == (None, None)
    assert not zoo.refresh(at=AT)
    assert zoo["gpt-5-mini"] == changed
    zoo.set("gpt-5-mini", usd_per_mtok_in=None, usd_per_mtok_out=None)
    assert not zoo["gpt-5-mini"].is_priced
    assert {change.field for change in zoo.refresh(at=AT)} > {"usd_per_mtok_in", "usd_per_mtok_out"}
    assert zoo["gpt-5-mini"].tariff is not None


@pinned
def test_refresh_says_what_changed() -> None:
    zoo = Zoo.of([from_library("deepseek-v4-flash", datetime(2026, 8, 1, tzinfo=timezone.utc)), profile("own-model")])
    changes = zoo.refresh(at=AT)
    assert [(c.candidate, c.field, c.old, c.new) for c in changes] == [
        ("deepseek-v4-flash", "usd_per_mtok_in", 0.14, 0.15),
        ("deepseek-v4-flash", "usd_per_mtok_out", 0.28, 0.6),
        ("deepseek-v4-flash", "usd_per_mtok_cached_in", 0.0028, 0.003),
    ]
    assert zoo["deepseek-v4-flash"].facts["usd_per_mtok_in"].date == "2026-11-25"
    assert not zoo.refresh(at=AT)


def test_what_wrapped_models_say_lies_over_the_zoo() -> None:
    zoo = Zoo.of([candidate("a", aliases=("azure-a",), tools=True), profile("b")])
    said = ModelFacts({"azure-a": {"context_window": 10, "modalities": {"text", "image"}, "tools": False}})
    seen = said.over(zoo["a"])
    assert (seen.context_window, seen.tools) == (10, True)  # tools: the user's word
    assert seen.modalities == frozenset({"text", "image"})
    assert said.over(zoo["b"]) == zoo["b"]
    assert zoo["a"].context_window is None
    zoo.set("a", context_window=99)
    assert said.over(zoo["a"]).context_window == 99


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"usd_per_mtok_in": -1}, "usd_per_mtok_in"),
        ({"usd_per_mtok_out": float("nan")}, "usd_per_mtok_out"),
        ({"usd_per_mtok_out": float("inf")}, "usd_per_mtok_out"),
        ({"usd_per_mtok_in": "cheap"}, "usd_per_mtok_in"),
        ({"context_window": -5}, "context_window"),
        ({"modalities": {"smell"}}, "modalities"),
        ({"released": "last year"}, "released"),
    ],
)
def test_facts_that_cannot_be_are_one_sentence(facts: dict[str, object], sentence: str) -> None:
    zoo = Zoo.of([profile("a")])
    states: list[Callable[[], object]] = [lambda: zoo.set("a", **facts), lambda: candidate("a", **facts)]
    for state in states:
        with pytest.raises(ZooError, match=f"Not a valid candidate 'a': {sentence}") as error:
            state()
        assert "\n" not in str(error.value)
    assert zoo["a"] == candidate("a")


def test_a_zoo_of_version_1_is_read_and_its_text_only_was_nobodys_word(tmp_path: Path) -> None:
    content = json.loads(
        Zoo.of([candidate("a", modalities={"text"}), candidate("b", modalities={"text", "image"})]).to_json()
    )
    content = {"candidates": content["candidates"]}
    file = tmp_path / "zoo.json"
    file.write_text(json.dumps({"kind": "zoo", "version": 1, "digest": digest_of(content), **content}))
    zoo = Zoo.load(file)
    assert zoo["a"].modalities is None
    assert zoo["b"].modalities == frozenset({"text", "image"})
    assert Zoo.load(zoo.save(file)) == zoo
    file.write_text(json.dumps({"kind": "zoo", "version": 1, "digest": "0" * 64, **content}))
    with pytest.raises(ZooError, match="has been changed"):
        Zoo.load(file)


def test_facts_survive_a_file_and_absent_ones_are_not_written(tmp_path: Path) -> None:
    zoo = Zoo.of([from_library("gemini-2.5-pro"), profile("bare")])
    assert Zoo.load(zoo.save(tmp_path / "zoo.json")) == zoo
    bare = json.loads(zoo.to_json())["candidates"][1]
    assert not bare.keys() & (
        set(FIELDS) - {"usd_per_mtok_in", "usd_per_mtok_out", "context_window", "modalities", "tools"}
    )


def test_replace_takes_the_place_of_the_name() -> None:
    zoo = Zoo.of([profile("a", 0.5), profile("b", 0.5)])
    with pytest.raises(ZooError, match="called 'a'"):
        zoo.add(profile("a", 0.9))
    zoo.add(profile("a", 0.9), replace=True)
    assert zoo.names == ("a", "b")
    assert zoo["a"].profile.accuracy == 0.9
    zoo.add(profile("c"), replace=True)
    assert [*zoo.names] == ["a", "b", "c"]


def test_price_tables(tmp_path: Path) -> None:
    rows = tmp_path / "prices.csv"
    rows.write_text("model,usd_per_mtok_in,usd_per_mtok_out,modalities,note\na,1,2,text image,x\nzz,1,1,,\nb,,3,,\n")
    assert read_price_table(rows)["b"] == {"usd_per_mtok_out": "3"}
    zoo = Zoo.of([candidate("a"), candidate("b", usd_per_mtok_in=7.0)])
    assert zoo.set_all(read_price_table(rows)) == ("zz",)
    assert (zoo["a"].usd_per_mtok_in, zoo["b"].usd_per_mtok_in) == (1.0, 7.0)
    assert zoo["a"].modalities == frozenset({"text", "image"})
    by_name = tmp_path / "prices.json"
    by_name.write_text(json.dumps({"a": {"usd_per_mtok_in": 5}}))
    zoo.set_all(read_price_table(by_name))
    assert zoo["a"].usd_per_mtok_in == 5
    before = zoo.candidates
    with pytest.raises(ZooError, match="'b': usd_per_mtok_in"):
        zoo.set_all({"a": {"usd_per_mtok_in": 1}, "b": {"usd_per_mtok_in": "dear"}})
    assert zoo.candidates == before  # all or none
    with pytest.raises(ZooError, match="None of q is in the zoo"):
        zoo.set_all({"q": {"usd_per_mtok_in": 1}})


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": 3}', "[{}]", '[{"model": "a"}]', "[" * 100_000])
def test_what_is_no_price_table_is_one_sentence(text: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"prices\.json"):
        read_price_table(file)
