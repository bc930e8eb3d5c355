"""Where capability tokens, instruction and inquiry stand, and who may look at whom.

``capability-first`` is the paper's [c, x, p], one sequence for each pair of instruction and candidate.
``instruction-first`` is [x, p, c₁ … c_M]: every candidate's block sees the instruction and itself, no other
block, and has the positions that it would have alone. So one pass gives all M scores, and each equals the
score of [x, p, c_m] by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Embedded tokens: ``embeddings`` (B, T, H) and ``mask`` (B, T), False on padding."""

    embeddings: Tensor
    mask: Tensor

    @property
    def positions(self) -> Tensor:
        """(B, T), counted over tokens that are not padding."""
        return (self.mask.cumsum(dim=-1) - 1).clamp(min=0)


def pad_to_side(tokens: Tokens, side: str) -> Tokens:
    """Move padding, wherever it stands, to one side, and drop columns that are padding throughout."""
    order = torch.argsort((~tokens.mask if side == "right" else tokens.mask).int(), dim=1, stable=True)
    width = int(tokens.mask.sum(dim=1).max())
    order = order[:, :width] if side == "right" else order[:, order.shape[1] - width :]
    index = order[..., None].expand(-1, -1, tokens.embeddings.shape[-1])
    return Tokens(tokens.embeddings.gather(1, index), tokens.mask.gather(1, order))


def capability_first(prompts: Tokens, blocks: Tokens, n_start: int, side: str) -> Tokens:
    """One sequence a pair: the tokenizer's start, the capability tokens, the rest.

    Args:
        prompts: (N, T, H), padded on the right.
        blocks: (N · M, L, H), the candidates' tokens, instruction by instruction.
        n_start: tokens before the capability tokens.
        side: of the padding.

    Returns:
        (N · M, at most T + L, H).
    """
    repeats = len(blocks.mask) // len(prompts.mask)
    text, mask = prompts.embeddings.repeat_interleave(repeats, 0), prompts.mask.repeat_interleave(repeats, 0)
    embeddings = torch.cat([text[:, :n_start], blocks.embeddings, text[:, n_start:]], dim=1)
    return pad_to_side(Tokens(embeddings, torch.cat([mask[:, :n_start], blocks.mask, mask[:, n_start:]], dim=1)), side)


def prefix_visibility(mask: Tensor, *, causal: bool) -> Tensor:
    """Which prompt tokens see which: bool (N, T) → (N, T, T)."""
    n_tokens = mask.shape[1]
    seen = mask[:, None, :].expand(-1, n_tokens, -1)
    return seen.tril() if causal else seen


def block_visibility(prefix_mask: Tensor, block_mask: Tensor, *, causal: bool) -> Tensor:
    """What the candidates' blocks see: bool (N, T), (N, M, L) → (N, M·L, T + M·L)."""
    n, m, length = block_mask.shape
    block = torch.arange(m * length, device=block_mask.device) // length
    same_block = block[:, None] == block[None]  # (M·L, M·L)
    seen = (same_block.tril() if causal else same_block)[None] & block_mask.reshape(n, 1, m * length)
    return torch.cat([prefix_mask[:, None, :].expand(-1, m * length, -1), seen], dim=2)


def joint_mask(prefix_mask: Tensor, block_mask: Tensor, *, causal: bool) -> Tensor:
    """The attention mask of one pass over prompt and all blocks: bool (N, 1, T + M·L, T + M·L).

    The prompt sees no block. Every token sees itself, padding too: a softmax over nothing is NaN.
    """
    prefix = prefix_visibility(prefix_mask, causal=causal)
    n_blocks = block_mask.shape[1] * block_mask.shape[2]
    upper = torch.cat([prefix, prefix.new_zeros(*prefix.shape[:2], n_blocks)], dim=2)
    mask = torch.cat([upper, block_visibility(prefix_mask, block_mask, causal=causal)], dim=1)
    return see_oneself(mask)[:, None]


def see_oneself(mask: Tensor) -> Tensor:
    """Open the diagonal that ends in the last column: (N, Q, S) with Q ≤ S."""
    q, s = mask.shape[1:]
    return mask | torch.ones(q, s, dtype=torch.bool, device=mask.device).tril(s - q).triu(s - q)


def block_positions(prefix_mask: Tensor, block_mask: Tensor) -> Tensor:
    """Positions of the blocks' tokens, each block following the prompt: (N, T), (N, M, L) → (N, M·L)."""
    within = (block_mask.cumsum(dim=-1) - 1).clamp(min=0)
    return (prefix_mask.sum(dim=1)[:, None, None] + within).flatten(1)


def last_of(hidden: Tensor, mask: Tensor) -> Tensor:
    """The hidden state of each row's last token that is not padding: (…, T, H), (…, T) → (…, H)."""
    steps = torch.arange(mask.shape[-1], device=mask.device)
    last = (mask * steps).argmax(dim=-1)
    index = last[..., None, None].expand(*last.shape, 1, hidden.shape[-1])
    return hidden.gather(-2, index).squeeze(-2)


def mean_of(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean hidden state of each row's tokens that count: (…, T, H), (…, T) → (…, H)."""
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(dim=-2) / weights.sum(dim=-2).clamp(min=1)
