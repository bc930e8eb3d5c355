"""The inquiry as φ reads it, and how φ answers "Yes" or "No", for any tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from msat_core.errors import ConfigurationError


@dataclass(frozen=True)
class Inquiry:
    """The inquiry and the two next tokens that tell its answers apart.

    The words are tokenised behind the inquiry, as φ would write them: a leading space, a piece for the space
    alone or a word in several pieces all come out right. Pieces that both words begin with belong to the
    prompt; the first piece that differs decides.

    Attributes:
        ids: the inquiry's tokens.
        lead_ids: pieces that both words begin with, after the inquiry; mostly none.
        yes_id, no_id: the first tokens that differ.
    """

    ids: tuple[int, ...]
    lead_ids: tuple[int, ...]
    yes_id: int
    no_id: int


def tokenised_inquiry(tokenizer: PreTrainedTokenizerBase, inquiry: str, yes: str, no: str) -> Inquiry:
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
    return Inquiry(shared[:n_asked], shared[n_asked:], with_yes[common], with_no[common])
