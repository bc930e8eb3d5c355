"""How φ says "Yes" or "No", for any tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from msat_core.errors import ConfigurationError


@dataclass(frozen=True)
class Verdict:
    """The inquiry and the two next tokens that tell the words apart.

    The words are tokenised behind the inquiry, as φ would write them: a leading space, a piece for the space
    alone or a word in several pieces all come out right. Pieces that both words begin with belong to the
    prompt; the first piece that differs decides.

    Attributes:
        inquiry_ids: the inquiry's tokens.
        lead_ids: pieces that both words begin with, after the inquiry; mostly none.
        yes_id, no_id: the first tokens that differ.
    """

    inquiry_ids: tuple[int, ...]
    lead_ids: tuple[int, ...]
    yes_id: int
    no_id: int


def find_verdict(tokenizer: PreTrainedTokenizerBase, inquiry: str, yes: str, no: str) -> Verdict:
    """Tokenise inquiry and words. Raises ConfigurationError if the tokenizer cannot tell the words apart."""
    asked, with_yes, with_no = (
        tokenizer(inquiry + word, add_special_tokens=False)["input_ids"] for word in ("", yes, no)
    )
    common = 0
    while common < min(len(with_yes), len(with_no)) and with_yes[common] == with_no[common]:
        common += 1
    if common == min(len(with_yes), len(with_no)):
        raise ConfigurationError(
            f"This tokenizer cannot tell {yes!r} from {no!r} after the inquiry: choose other words, "
            "or the regression head."
        )
    shared = tuple(with_yes[:common])
    n_asked = len(asked) if shared[: len(asked)] == tuple(asked) else common
    return Verdict(shared[:n_asked], shared[n_asked:], with_yes[common], with_no[common])
