"""The connector: a capability representation's vectors into φ's embedding space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

QUERY_SCALE = 4.0  # of fresh attention queries: each looks at a few tasks, not at all of them alike


class Connector(nn.Module):
    """The paper's single linear layer, with attention pooling to a fixed number of tokens before it.

    The paper does not say whether a representation becomes one vector or several; here K vectors become
    ``n_tokens`` by attention with learnt queries, or stay K if ``n_tokens`` is None. Pooling depends on no
    order. Fresh weights give tokens the size of φ's own embeddings.

    Args:
        encoder_dim: D.
        llm_dim: H.
        n_tokens: tokens of each candidate, or None.
        n_evidence: numbers that come with each vector.
        embedding_rms: root mean square of φ's token embeddings.
    """

    def __init__(
        self, encoder_dim: int, llm_dim: int, *, n_tokens: int | None, n_evidence: int = 0, embedding_rms: float = 0.02
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(encoder_dim + n_evidence, llm_dim)
        nn.init.normal_(self.projection.weight, std=embedding_rms)
        nn.init.zeros_(self.projection.bias)
        self.queries = None if n_tokens is None else nn.Parameter(QUERY_SCALE * torch.randn(n_tokens, encoder_dim))

    def forward(self, vectors: Tensor, evidence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and which of them count.

        Args:
            vectors: unit vectors of ψ, (M, K, D).
            evidence: (M, K, E).
            mask: bool (M, K), False where a candidate has no such task.

        Returns:
            (M, L, H) and bool (M, L).
        """
        features = torch.cat([vectors, evidence], dim=-1)  # (M, K, D + E)
        if self.queries is not None:
            nearness = torch.einsum("ld,mkd->mlk", self.queries, vectors)
            weights = nearness.masked_fill(~mask[:, None], float("-inf")).softmax(dim=-1)  # (M, L, K)
            features, mask = weights @ features, mask.new_ones(len(mask), len(self.queries))
        tokens: Tensor = self.projection(features)
        return tokens, mask
