from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import (
    VOCABULARY,
    bert,
    byte_tokenizer,
    cls_tokenizer,
    llama,
    phi3,
    piece_tokenizer,
    tiny_assembly,
    tiny_config,
    tiny_profiles,
    tiny_scorer,
)

from msat_core import CapabilityProfile, ModelSATScorer, Router, Zoo
from msat_core.errors import ArtefactError, ConfigurationError, InstructionError
from msat_core.scoring import loading
from msat_core.scoring.model_sat import module as module_file
from msat_core.scoring.model_sat.assembly import assemble
from msat_core.scoring.model_sat.backbones import embedding_weight
from msat_core.scoring.model_sat.config import EMBEDDED, Backbone, Lora, ModelSATConfig
from msat_core.scoring.model_sat.inquiry import tokenised_inquiry
from msat_core.scoring.model_sat.layouts import Tokens, pad_to_side
from msat_core.scoring.model_sat.prompts import PromptBatch
from msat_core.scoring.model_sat.representations import represent

TEXTS = (
    "Which enzyme unwinds the double helix?",
    "Two plus two?",
    "Name the root of the equation, and prove at length that it is the only one. " * 2,
)
NEAR = 1e-5  # fp32


def logits_of(scorer: ModelSATScorer, texts: Sequence[str], profiles: Sequence[CapabilityProfile]) -> np.ndarray:
    return scorer.logits(scorer.prompts(texts), profiles)


def by_hand(scorer: ModelSATScorer, text: str, profile: CapabilityProfile) -> float:
    """One pair through the language model's own forward, without padding, mask or cache."""
    module, config = scorer.module, scorer.config
    prompt = torch.tensor([scorer.prompts([text])[0].ids])
    tokenizer = scorer._assembly.representation_tokenizer
    capability = module.capability_tokens(represent([profile], config, tokenizer)).embeddings
    embeds = module.llm.get_input_embeddings()(prompt)
    n = module.n_start if config.layout == "capability-first" else prompt.shape[1]
    lead = module.llm.get_input_embeddings()(torch.tensor([module.inquiry.lead_ids], dtype=torch.long))
    parts = [embeds[:, :n], capability, embeds[:, n:]] + ([lead] if config.layout == "instruction-first" else [])
    with torch.inference_mode():
        last = module.llm(inputs_embeds=torch.cat(parts, dim=1)).logits[0, -1].log_softmax(-1)
    return float(last[module.inquiry.yes_id] - last[module.inquiry.no_id])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("layout", ["capability-first", "instruction-first"])
@pytest.mark.parametrize("llm", [llama(), phi3()], ids=["llama", "phi3"])
def test_one_forward_equals_a_loop(llm: Backbone, layout: str, side: str) -> None:
    scorer = tiny_scorer(llm=llm, layout=layout, padding_side=side)
    profiles = tiny_profiles()
    expected = [[by_hand(scorer, text, profile) for profile in profiles] for text in TEXTS]
    found = logits_of(scorer, TEXTS, profiles)
    assert np.std(found) > 0.1
    np.testing.assert_allclose(found, expected, atol=NEAR, rtol=0)


@pytest.mark.parametrize(
    ("representation", "n_tokens"), [("per-task", None), ("per-task", 1), ("pooled", 8), ("no-encoder", 8)]
)
@pytest.mark.parametrize("layout", ["capability-first", "instruction-first"])
def test_every_representation_is_exact(layout: str, representation: str, n_tokens: int | None) -> None:
    encoder = None if representation == "no-encoder" else bert()
    scorer = tiny_scorer(layout=layout, representation=representation, n_capability_tokens=n_tokens, encoder=encoder)
    profiles = tiny_profiles()
    expected = [[by_hand(scorer, text, profile) for profile in profiles] for text in TEXTS]
    np.testing.assert_allclose(logits_of(scorer, TEXTS, profiles), expected, atol=NEAR, rtol=0)


@pytest.mark.parametrize("layout", ["capability-first", "instruction-first"])
def test_a_bidirectional_llm_is_exact_too(layout: str) -> None:
    scorer = tiny_scorer(llm=bert(), llm_kind="bidirectional", head="regression", layout=layout)
    profiles = tiny_profiles()
    together = logits_of(scorer, TEXTS, profiles)
    alone = [[logits_of(scorer, [text], [profile])[0, 0] for profile in profiles] for text in TEXTS]
    np.testing.assert_allclose(together, alone, atol=NEAR, rtol=0)
    assert np.ptp(together, axis=1).min() > 1e-4  # candidates differ


def test_many_candidates_go_in_turns_against_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = tiny_profiles(7)
    kinds: list[dict[str, Any]] = [{}, {"llm": bert(), "llm_kind": "bidirectional", "head": "regression"}]
    for changes in kinds:
        scorer = tiny_scorer(**changes)
        monkeypatch.setattr(module_file, "MAX_BLOCK_TOKENS", 1024)
        expected = logits_of(scorer, TEXTS, profiles)
        monkeypatch.setattr(module_file, "MAX_BLOCK_TOKENS", 7)  # two candidates of three tokens at once
        np.testing.assert_allclose(logits_of(scorer, TEXTS, profiles), expected, atol=NEAR, rtol=0)


def test_a_token_budget_changes_no_score() -> None:
    for layout in ("capability-first", "instruction-first"):
        assembly, profiles = tiny_assembly(layout=layout), tiny_profiles()
        wide = logits_of(ModelSATScorer(assembly, device="cpu"), TEXTS, profiles)
        narrow = logits_of(ModelSATScorer(assembly, device="cpu", token_budget=100), TEXTS, profiles)
        np.testing.assert_allclose(narrow, wide, atol=NEAR, rtol=0)
    with pytest.raises(ConfigurationError, match="token_budget"):
        ModelSATScorer(assembly, token_budget=0)


def test_embedded_tokens_equal_token_ids() -> None:
    """`no-encoder` through `inputs_embeds` is the language model reading the same ids."""
    scorer = tiny_scorer(encoder=None, representation="no-encoder", layout="capability-first")
    profile, module = tiny_profiles(1)[0], scorer.module
    prompt = list(scorer.prompts([TEXTS[0]])[0].ids)
    text = scorer._assembly.llm_tokenizer(profile.to_text(), add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*prompt[:1], *text, *prompt[1:]]])
    with torch.inference_mode():
        last = module.llm(input_ids=ids).logits[0, -1]
    expected = float(last[module.inquiry.yes_id] - last[module.inquiry.no_id])
    assert logits_of(scorer, [TEXTS[0]], [profile])[0, 0] == pytest.approx(expected, abs=NEAR)


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), piece_tokenizer()], ids=["marked-space", "space-piece"])
def test_the_answer_is_the_first_piece_that_differs(tokenizer: Any) -> None:
    inquiry = "Predict. Prediction:"
    tokens = tokenised_inquiry(tokenizer, inquiry, " Yes", " No")
    yes, no = (tokenizer(inquiry + word, add_special_tokens=False)["input_ids"] for word in (" Yes", " No"))
    prompt = [*tokens.ids, *tokens.lead_ids]
    assert yes[: len(prompt) + 1] == [*prompt, tokens.yes_id]
    assert no[: len(prompt) + 1] == [*prompt, tokens.no_id]
    assert tokens.yes_id != tokens.no_id
    with pytest.raises(ConfigurationError, match="cannot tell"):
        tokenised_inquiry(tokenizer, inquiry, " Yes", " Yes")


def test_pieces_that_both_words_share_are_read_over() -> None:
    tokenizer = piece_tokenizer()
    config = tiny_config(max_length=200)
    for layout in ("capability-first", "instruction-first"):
        torch.manual_seed(0)
        assembly = assemble(config.changed(layout=layout), llm_tokenizer=tokenizer, encoder_tokenizer=cls_tokenizer())
        scorer = ModelSATScorer(assembly, device="cpu")
        assert scorer.module.inquiry.lead_ids
        profiles = tiny_profiles(2)
        expected = [[by_hand(scorer, text, profile) for profile in profiles] for text in TEXTS[:2]]
        np.testing.assert_allclose(logits_of(scorer, TEXTS[:2], profiles), expected, atol=NEAR, rtol=0)


def shuffled(profile: CapabilityProfile) -> CapabilityProfile:
    return profile.changed(results=tuple(reversed(profile.results)))


def test_per_task_tokens_know_no_order_and_pooled_text_does() -> None:
    """Why the paper averages over shuffles, and why per-task tokens need not."""
    profiles = tiny_profiles()
    turned = [shuffled(profile) for profile in profiles]
    for n_tokens in (3, None):
        scorer = tiny_scorer(n_capability_tokens=n_tokens)
        one, other = (logits_of(scorer, TEXTS, own) for own in (profiles, turned))
        np.testing.assert_allclose(one, other, atol=NEAR, rtol=0)
    text = tiny_scorer(encoder=None, representation="no-encoder")
    assert np.abs(logits_of(text, TEXTS, profiles) - logits_of(text, TEXTS, turned)).max() > 0.01


def test_perturbations_average_over_orders() -> None:
    assembly = tiny_assembly(representation="pooled", perturbations=2)
    scorer, profile = ModelSATScorer(assembly, device="cpu"), tiny_profiles(4)[3]
    plain = ModelSATScorer(tiny_assembly(representation="pooled"), device="cpu")
    seed, found = int(profile.digest[:8], 16), []
    for n in range(2):
        order = np.random.default_rng([seed, n]).permutation(len(profile.results))
        found.append(logits_of(plain, TEXTS, [profile.changed(results=tuple(profile.results[i] for i in order))]))
    np.testing.assert_allclose(logits_of(scorer, TEXTS, [profile]), (found[0] + found[1]) / 2, atol=NEAR, rtol=0)
    same = tiny_scorer(perturbations=2)  # per-task: a no-op
    np.testing.assert_allclose(
        logits_of(same, TEXTS, [profile]), logits_of(tiny_scorer(), TEXTS, [profile]), atol=NEAR, rtol=0
    )


def test_padding_moves_to_one_side() -> None:
    mask = torch.tensor([[True, False, True, False], [True, True, False, False]])
    tokens = Tokens(torch.arange(8.0).reshape(2, 4, 1), mask)
    assert pad_to_side(tokens, "right").embeddings[..., 0].tolist() == [[0, 2], [4, 5]]
    ragged = Tokens(tokens.embeddings, torch.tensor([[True, False, True, True], [False, True, False, False]]))
    left = pad_to_side(ragged, "left")
    assert left.mask.tolist() == [[True, True, True], [False, False, True]]
    assert left.embeddings[0, :, 0].tolist() == [0, 2, 3] and left.embeddings[1, 2, 0] == 5
    assert left.positions.tolist() == [[0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_save_and_load_give_the_same_scores(tuning: str, tmp_path: Path) -> None:
    source = tmp_path / "backbone"
    tiny_assembly(seed=3).module.llm.save_pretrained(source)
    byte_tokenizer().save_pretrained(source)
    llm = Backbone(source=str(source), tuning=tuning, lora=Lora(rank=2))
    torch.manual_seed(1)
    assembly = assemble(tiny_config(llm=llm), encoder_tokenizer=cls_tokenizer())
    scorer = ModelSATScorer(assembly, device="cpu")
    with torch.no_grad():
        for parameter in scorer.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    scorer = scorer.changed(slope=0.5, level=0.75, intercept=0.25)
    folder = scorer.save(tmp_path / "scorer")
    kept = json.loads((folder / "scorer.json").read_text())
    assert any(name.endswith(".safetensors") for name in kept["files"])
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pkl", ".pt")]
    profiles = tiny_profiles()
    router = Router.from_pretrained(folder, zoo=Zoo.of(profiles))
    expected = scorer.score(TEXTS, profiles).probabilities
    np.testing.assert_allclose(router.score(TEXTS).probabilities, expected, atol=1e-6)
    assert router.route(TEXTS[0]).candidate == profiles[int(expected[0].argmax())].candidate
    if tuning == "lora":
        stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        full = tiny_scorer().save(tmp_path / "whole")
        whole = sum(path.stat().st_size for path in full.glob("*.safetensors"))
        assert stored < whole  # adapters, not the backbone


def test_shards_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msat_core.scoring.model_sat.assembly.MAX_SHARD_SIZE", "100KB")
    scorer = tiny_scorer()
    folder = scorer.save(tmp_path / "scorer")
    assert len(list(folder.glob("weights-*.safetensors"))) > 1
    again = loading.load(folder)
    profiles = tiny_profiles()
    np.testing.assert_array_equal(
        again.score(TEXTS, profiles).probabilities, scorer.score(TEXTS, profiles).probabilities
    )


def test_damaged_folders_are_one_sentence(tmp_path: Path) -> None:
    folder = tiny_scorer().save(tmp_path / "scorer")
    shard = next(folder.glob("weights*.safetensors"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-10])
    with pytest.raises(ArtefactError, match="damaged or cut short"):
        loading.load(folder)
    shard.write_bytes(data)
    tokenizer = folder / "llm_tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(ArtefactError, match="missing or has been changed"):
        loading.load(folder)
    with pytest.raises(ArtefactError, match="owner/name@"):
        loading.load("somebody/their-scorer")


def test_a_hub_id_is_fetched_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = tiny_scorer().save(tmp_path / "scorer"), []

    def snapshot_download(repo: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((repo, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    commit = "0123456789" * 4
    router = Router.from_pretrained(f"somebody/scorer@{commit}", zoo=Zoo.of(tiny_profiles()))
    assert asked == [("somebody/scorer", commit)]
    assert router.route(TEXTS[0]).score is not None


def test_profiles_are_encoded_once() -> None:
    scorer, profiles, calls = tiny_scorer(), tiny_profiles(), []
    assert scorer.module.encoder is not None
    scorer.module.encoder.register_forward_hook(lambda *_: calls.append(1))
    scorer.score(TEXTS, profiles)
    assert len(calls) == len(profiles)
    scorer.score(TEXTS[:1], list(reversed(profiles)))
    assert len(calls) == len(profiles)


def test_candidates_keep_their_scores_in_any_company() -> None:
    scorer, profiles = tiny_scorer(n_capability_tokens=None), tiny_profiles(5)
    scores = scorer.score(TEXTS, profiles).probabilities
    order = [3, 0, 4, 1, 2]
    np.testing.assert_allclose(
        scorer.score(TEXTS, [profiles[i] for i in order]).probabilities, scores[:, order], atol=1e-6
    )


def test_long_instructions_are_cut_and_counted() -> None:
    scorer = tiny_scorer()
    found = scorer.score(["short", "word " * 500], tiny_profiles(2))
    assert found.truncated_tokens[0] == 0 < found.truncated_tokens[1]
    assert max(len(prompt.ids) for prompt in scorer.prompts(["word " * 500])) == scorer.config.max_length


def test_bad_input_is_one_sentence() -> None:
    scorer = tiny_scorer()
    with pytest.raises(ConfigurationError, match="nobody to score"):
        scorer.score(TEXTS, [])
    with pytest.raises(InstructionError):
        scorer.score([" "], tiny_profiles(1))
    with pytest.raises(ConfigurationError, match="reads no images"):
        scorer.score(["What is it?"], tiny_profiles(1), images=[[]])
    with pytest.raises(ArtefactError, match="predicts no next word"):
        ModelSATConfig(llm=bert(), llm_kind="bidirectional")
    with pytest.raises(ArtefactError, match="exactly where encoder is null"):
        ModelSATConfig(encoder=None)
    with pytest.raises(ConfigurationError, match="more than the 512"):
        tiny_assembly(max_length=600)
    with pytest.raises(ConfigurationError, match="inquiry alone"):
        tiny_assembly(max_length=16)
    with pytest.raises(ArtefactError, match="cannot be loaded"):
        tiny_assembly(llm=Backbone(source="/nowhere"))


def test_half_precision_stays_near() -> None:
    profiles = tiny_profiles()
    full = tiny_scorer(seed=5).score(TEXTS, profiles).probabilities
    for dtype in ("bfloat16", "float16"):
        half = tiny_scorer(seed=5, llm=llama(dtype=dtype)).score(TEXTS, profiles).probabilities
        assert np.abs(half - full).max() < 0.1


def vision_scorer(layout: str) -> ModelSATScorer:
    """A tiny Llava: CLIP tower, projector, Llama."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "CLIPImageProcessorPil"):
        pytest.skip("came after the oldest transformers")
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = byte_tokenizer()
    config = {
        "model_type": "llava",
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "image_seq_length": 4,
        "vision_config": {"model_type": "clip_vision_model", "image_size": 16, "patch_size": 8, **size},
        "text_config": llama().config,
    }
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_convert_rgb=True
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    torch.manual_seed(0)
    settings = tiny_config(llm=Backbone(config=config), llm_kind="image-text", layout=layout)
    assembly = assemble(settings, processor=processor, encoder_tokenizer=cls_tokenizer())
    return ModelSATScorer(assembly, device="cpu")


@pytest.mark.parametrize("layout", ["capability-first", "instruction-first"])
def test_a_vision_language_llm_sees_images_beside_capability_tokens(layout: str, tmp_path: Path) -> None:
    scorer, profiles = vision_scorer(layout), tiny_profiles()
    red, noise = Image.new("RGB", (20, 16), "red"), Image.effect_noise((16, 16), 90).convert("RGB")
    texts, images = ["What is it?", "And here <image>?", "No picture."], [[red], [noise, red], []]
    together = scorer.score(texts, profiles, images=images).probabilities
    alone = [
        [scorer.score([text], [profile], images=[own]).probabilities[0, 0] for profile in profiles]
        for text, own in zip(texts, images, strict=True)
    ]
    np.testing.assert_allclose(together, alone, atol=NEAR, rtol=0)
    other = scorer.score(texts[:1], profiles, images=[[noise]]).probabilities
    assert np.abs(other - together[:1]).max() > 1e-4  # the picture counts
    text_only = scorer.score(texts[2:], profiles).probabilities
    np.testing.assert_allclose(text_only, together[2:], atol=NEAR, rtol=0)
    again = loading.load(scorer.save(tmp_path / "scorer"))
    assert isinstance(again, ModelSATScorer)
    np.testing.assert_allclose(again.score(texts, profiles, images=images).probabilities, together, atol=1e-6)


def test_embedded_encoder_as_both_backbones() -> None:
    embedded = Backbone(source=EMBEDDED, tuning="frozen")
    config = ModelSATConfig(encoder=embedded, llm=embedded, llm_kind="bidirectional", head="regression", max_length=64)
    scorer = ModelSATScorer(assemble(config), device="cpu")
    profiles = tiny_profiles(2)
    scores = scorer.score(TEXTS, profiles).probabilities
    alone = scorer.score(TEXTS[1:2], profiles[1:]).probabilities
    np.testing.assert_allclose(alone, scores[1:2, 1:], atol=NEAR)
    assert scorer.module.connector is not None
    tokens = scorer.module.connector.projection.weight.std().item()
    words = embedding_weight(scorer.module.llm).std().item()
    assert tokens == pytest.approx(words, rel=0.1)  # capability tokens begin at the size of words


def test_prompt_batches_round_widths_up() -> None:
    scorer = tiny_scorer()
    batch = PromptBatch.of(scorer.prompts(TEXTS), multiple=64)
    assert batch.ids.shape[1] % 64 == 0 and batch.ids.max() < VOCABULARY


def test_calibration_weighs_logit_and_exam() -> None:
    scorer, profiles = tiny_scorer(), tiny_profiles()
    changed = scorer.changed(slope=0.5, level=2.0, intercept=-1.0)
    right = np.array([sum(r.n_correct for r in p.results) for p in profiles])
    shots = np.array([p.n_shots for p in profiles])
    expected = 0.5 * logits_of(scorer, TEXTS, profiles) + 2 * np.log((right + 1) / (shots - right + 1)) - 1
    np.testing.assert_allclose(changed.score(TEXTS, profiles).probabilities, 1 / (1 + np.exp(-expected)), atol=1e-6)
