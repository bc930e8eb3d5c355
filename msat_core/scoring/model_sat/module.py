"""The network: ψ reads capability representations, the connector hands them to φ, φ says how likely "Yes" is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize
from transformers import DynamicCache, PreTrainedModel

from msat_core.scoring.model_sat.backbones import decoder_of, embedding_weight
from msat_core.scoring.model_sat.config import ModelSATConfig
from msat_core.scoring.model_sat.connector import Connector
from msat_core.scoring.model_sat.inquiry import Inquiry
from msat_core.scoring.model_sat.layouts import (
    Tokens,
    block_positions,
    block_visibility,
    capability_first,
    joint_mask,
    last_of,
    mean_of,
    pad_to_side,
    prefix_visibility,
    see_oneself,
)
from msat_core.scoring.model_sat.prompts import PromptBatch
from msat_core.scoring.model_sat.representations import N_EVIDENCE, Representations

MAX_BLOCK_TOKENS = 1024  # capability tokens beside one prompt in one pass; more go in turns against its cache


class ModelSAT(nn.Module):
    """See the module. Loads nothing itself: backbones come from :mod:`.backbones`.

    Args:
        config: representation, layout and head.
        llm: φ, with its language-modelling head for the answer.
        encoder: ψ, or None for ``no-encoder``.
        inquiry: its tokens and those of "Yes" and "No"; the regression head needs none.
        n_start: tokens that φ's tokenizer puts before a text.
    """

    def __init__(
        self,
        config: ModelSATConfig,
        llm: PreTrainedModel,
        encoder: PreTrainedModel | None,
        *,
        inquiry: Inquiry,
        n_start: int,
    ) -> None:
        super().__init__()
        self.config, self.inquiry, self.n_start = config, inquiry, n_start
        self.llm, self.encoder = llm, encoder
        width = embedding_weight(llm).shape[1]
        self.connector = None
        if encoder is not None:
            with torch.no_grad():
                rms = float(embedding_weight(llm).float().pow(2).mean().sqrt())
            self.connector = Connector(
                embedding_weight(encoder).shape[1],
                width,
                n_tokens=config.n_pooled,
                n_evidence=N_EVIDENCE if config.reads_evidence else 0,
                embedding_rms=rms,
            )
        self.head = nn.Linear(width, 1) if config.head == "regression" else None
        self._causal = config.llm_kind != "bidirectional"
        # Where sharding may cut; accelerate looks for the name that transformers gives it.
        self._no_split_modules = [
            name for backbone in (llm, encoder) if backbone is not None for name in backbone._no_split_modules or ()
        ]

    def forward(self, prompts: PromptBatch, representations: Representations, columns: Tensor) -> Tensor:
        """Logits of pairs: for N prompts the representations that ``columns`` (N, M) names → (N, M)."""
        return self.logits(prompts, self.capability_tokens(representations), columns)

    def encode(self, representations: Representations) -> Tensor:
        """Unit vectors of the distinct texts, mean-pooled as E5 and MiniLM are: (U, D)."""
        if representations.vectors is not None:
            return representations.vectors
        assert self.encoder is not None
        mask = representations.token_mask
        hidden = self.encoder(input_ids=representations.token_ids, attention_mask=mask.long()).last_hidden_state
        return normalize(mean_of(hidden.float(), mask), dim=-1)

    def capability_tokens(self, representations: Representations) -> Tokens:
        """What φ reads of M candidates: (M, L, H)."""
        embed = self.llm.get_input_embeddings()
        if self.connector is None:
            return Tokens(embed(representations.token_ids), representations.token_mask)
        vectors = self.encode(representations)[representations.text_of]  # (M, K, D)
        tokens, mask = self.connector(vectors, representations.evidence, representations.mask)
        return Tokens(tokens.to(embed.weight.dtype), mask)

    def logits(self, prompts: PromptBatch, capability: Tokens, columns: Tensor) -> Tensor:
        """Like :meth:`forward`, with the candidates' tokens (C, L, H) already at hand."""
        text = Tokens(self.llm.get_input_embeddings()(prompts.ids), prompts.mask)
        if self.config.layout == "capability-first":
            return self._capability_first(text, capability, columns, prompts.vision)
        vision = {name: torch.cat(tensors) for name, tensors in prompts.vision.items()}
        text = pad_to_side(text, self.config.padding_side)
        return self._instruction_first(text, self._with_lead(capability), columns, vision)

    def _capability_first(
        self, text: Tokens, capability: Tokens, columns: Tensor, images: Mapping[str, tuple[Tensor, ...]]
    ) -> Tensor:
        n, m = columns.shape
        blocks = Tokens(capability.embeddings[columns.flatten()], capability.mask[columns.flatten()])
        rows = capability_first(text, blocks, self.n_start, self.config.padding_side)
        vision = {name: torch.cat([tensor for tensor in tensors for _ in range(m)]) for name, tensors in images.items()}
        hidden = self._hidden(rows, rows.mask.long(), rows.positions, **vision)
        return self._read(last_of(hidden, rows.mask) if self._causal else mean_of(hidden, rows.mask)).reshape(n, m)

    def _instruction_first(
        self, text: Tokens, capability: Tokens, columns: Tensor, vision: Mapping[str, Tensor]
    ) -> Tensor:
        """All candidates of all prompts; the prompt is computed once."""
        length = capability.mask.shape[1]
        at_once = max(1, MAX_BLOCK_TOKENS // length)
        if columns.shape[1] <= at_once:
            return self._joint(text, capability, columns, vision)
        parts = torch.split(columns, at_once, dim=1)
        if not self._causal:  # no cache to go on from: the prompt is computed again for each part
            return torch.cat([self._joint(text, capability, part, vision) for part in parts], dim=1)
        cache = DynamicCache(config=self.llm.config.get_text_config())
        visible = see_oneself(prefix_visibility(text.mask, causal=True))[:, None]
        self._hidden(text, visible, text.positions, past_key_values=cache, use_cache=True, **vision)
        logits = []
        for part in parts:
            logits.append(self._against_cache(text.mask, capability, part, cache))
            cache.crop(-part.shape[1] * length)
        return torch.cat(logits, dim=1)

    def _joint(self, text: Tokens, capability: Tokens, columns: Tensor, vision: Mapping[str, Tensor]) -> Tensor:
        """One pass over [x, p, c₁ … c_M]: (N, M)."""
        n_text = text.mask.shape[1]
        embeddings, mask = capability.embeddings[columns], capability.mask[columns]  # (N, M, L, H), (N, M, L)
        rows = Tokens(
            torch.cat([text.embeddings, embeddings.flatten(1, 2)], dim=1),
            torch.cat([text.mask, mask.flatten(1)], dim=1),
        )
        positions = torch.cat([text.positions, block_positions(text.mask, mask)], dim=1)
        hidden = self._hidden(rows, joint_mask(text.mask, mask, causal=self._causal), positions, **vision)
        blocks = hidden[:, n_text:].reshape(*mask.shape, -1)  # (N, M, L, H)
        if self._causal:
            return self._read(last_of(blocks, mask))
        # Instruction and capability count alike, however long each is.
        return self._read((mean_of(hidden[:, :n_text], text.mask)[:, None] + mean_of(blocks, mask)) / 2)

    def _against_cache(self, text_mask: Tensor, capability: Tokens, columns: Tensor, cache: DynamicCache) -> Tensor:
        embeddings, mask = capability.embeddings[columns], capability.mask[columns]
        rows = Tokens(embeddings.flatten(1, 2), mask.flatten(1))
        visible = see_oneself(block_visibility(text_mask, mask, causal=True))[:, None]
        hidden = self._hidden(rows, visible, block_positions(text_mask, mask), past_key_values=cache, use_cache=True)
        return self._read(last_of(hidden.reshape(*mask.shape, -1), mask))

    def _with_lead(self, capability: Tokens) -> Tokens:
        """The tokens that both answers begin with follow the capability tokens, where the answer is read."""
        if not self.inquiry.lead_ids:
            return capability
        n = len(capability.mask)
        lead = self.llm.get_input_embeddings()(torch.tensor(self.inquiry.lead_ids, device=capability.mask.device))
        return Tokens(
            torch.cat([capability.embeddings, lead.expand(n, -1, -1)], dim=1),
            torch.cat([capability.mask, capability.mask.new_ones(n, len(lead))], dim=1),
        )

    def _hidden(self, rows: Tokens, attention_mask: Tensor, positions: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
        options.setdefault("use_cache", False)
        hidden: Tensor = decoder_of(self.llm)(
            inputs_embeds=rows.embeddings, attention_mask=attention_mask, position_ids=positions, **options
        ).last_hidden_state
        return hidden

    def _read(self, hidden: Tensor) -> Tensor:
        """Logits in fp32: log P(Yes) − log P(No), which is P("Yes") among the two words asked for, or the head's."""
        if self.head is not None:
            logits: Tensor = self.head(hidden.to(self.head.weight.dtype)).squeeze(-1).float()
            return logits
        output = self.llm.get_output_embeddings()
        ids = torch.tensor([self.inquiry.yes_id, self.inquiry.no_id], device=hidden.device)
        bias = None if getattr(output, "bias", None) is None else output.bias[ids].float()
        both = linear(hidden.float(), output.weight[ids].float(), bias)
        return both[..., 0] - both[..., 1]
