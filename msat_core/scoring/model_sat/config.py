"""What a Model-SAT scorer is made of, as data.

The paper leaves open how long the prompts are, whether a capability representation becomes one vector or
several, how "Yes" is normalised, and which revisions of its backbones it used. The defaults here are our
choices; the paper's own variants are the settings named in :class:`ModelSATConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from msat_core.documents import Document
from msat_core.errors import ArtefactError, MsatError

EMBEDDED = "embedded"  # the source that stands for the all-MiniLM-L6-v2 of `msat_core.encoders.published`

Representation = Literal["per-task", "pooled", "no-encoder"]
Layout = Literal["capability-first", "instruction-first"]


class Lora(BaseModel):
    """Low-rank adapters of a backbone (peft). ``targets``: module names, or ``all-linear``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class Backbone(BaseModel):
    """A pretrained network, or one to be built.

    Attributes:
        source: a Hugging Face id, a local folder, or ``embedded``; empty: built from ``config`` with random weights.
        revision: commit of a Hugging Face id; looked up and written down at first load if empty.
        config: the transformers configuration with its ``model_type``; filled in when the scorer is saved.
        tuning: ``frozen``, ``lora`` (weights of the source plus adapters) or ``full`` (own weights).
        lora: of ``tuning: lora``.
        dtype: of its frozen and fully tuned weights.
        tokenizer: where its tokenizer comes from, if not from ``source``: a folder, id or ``embedded``.
        prefix: before every text that an encoder reads (E5 wants ``query: ``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = ""
    revision: str = ""
    config: Mapping[str, Any] | None = None
    tuning: Literal["frozen", "lora", "full"] = "full"
    lora: Lora = Lora()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    tokenizer: str = ""
    prefix: str = ""

    @model_validator(mode="after")
    def _has_origin(self) -> Backbone:
        if not self.source and self.config is None:
            raise ValueError("a backbone needs a source (a Hugging Face id, a folder, 'embedded') or a config")
        return self


class ModelSATConfig(Document):
    """Everything about a Model-SAT scorer but its tensors and tokenizers.

    Attributes:
        encoder: ψ, reads the capability representation; None for ``no-encoder``. Paper: E5-Large.
        llm: φ, reads capability tokens, instruction and inquiry. Paper: Phi-3-Mini.
        llm_kind: ``causal`` (AutoModelForCausalLM), ``bidirectional`` (AutoModel, regression head) or
            ``image-text`` (AutoModelForImageTextToText).
        representation: ``per-task`` encodes each task's clause on its own, so nothing is cut and order cannot
            matter; ``pooled`` encodes the whole text into one vector; ``no-encoder`` gives the text to φ itself.
        n_capability_tokens: attention pools the K task vectors to so many; None: one token a task.
        evidence: whether the connector also reads each task's counts as numbers (``per-task`` only).
        head: ``verdict`` is φ's answer to the inquiry, log P(Yes) − log P(No); ``regression`` is linear in the last
            hidden state.
        layout: ``capability-first`` is the paper's [c, x, p]; ``instruction-first`` is [x, p, c], where the
            instruction is computed once for all candidates.
        instruction_prefix, inquiry: the text around x, and p.
        yes, no: the words after the inquiry, with their leading space.
        max_length: tokens of instruction and inquiry that φ reads; the instruction's end is cut.
        max_capability_length: tokens of one text that ψ (or, without ψ, φ) reads of a representation.
        padding_side: of φ's batches.
        perturbations: random orders of the tasks whose scores are averaged (paper: 2); 0: the profile's order.
        slope, level, intercept: calibration, fitted on held-out candidates: slope × φ's logit + level × the log odds
            of the candidate's whole exam + intercept. The paper's listwise loss compares instructions of one candidate
            and so says nothing of one candidate's level beside another's; the exam does.
        files: SHA-256 of every file beside the configuration.
        trained_on: what it was trained on and how, for people.
    """

    kind: ClassVar[str] = "model-sat-scorer"
    error: ClassVar[type[MsatError]] = ArtefactError

    encoder: Backbone | None = Backbone(
        source="intfloat/e5-large-v2", revision="f169b11e22de13617baa190a028a32f3493550b6", prefix="query: "
    )
    llm: Backbone = Backbone(
        source="microsoft/Phi-3-mini-4k-instruct",
        revision="0a67737cc96d2554230f90338b163bc6380a2a85",
        dtype="bfloat16",
        tuning="lora",
    )
    llm_kind: Literal["causal", "bidirectional", "image-text"] = "causal"
    representation: Representation = "per-task"
    n_capability_tokens: int | None = Field(default=8, ge=1)
    evidence: bool = True
    head: Literal["verdict", "regression"] = "verdict"
    layout: Layout = "instruction-first"
    instruction_prefix: str = "Instruction: "
    inquiry: str = (
        "\nPredict whether the model can handle the test instruction by indicating 'Yes' or 'No'.\nPrediction:"
    )
    yes: str = " Yes"
    no: str = " No"
    max_length: int = Field(default=1024, ge=16)
    max_capability_length: int = Field(default=128, ge=8)
    padding_side: Literal["left", "right"] = "left"
    perturbations: int = Field(default=0, ge=0)
    slope: float = Field(default=1.0, gt=0)
    level: float = 0.0
    intercept: float = 0.0
    files: Mapping[str, str] = Field(default_factory=dict)
    trained_on: Mapping[str, str | int | float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _can_work(self) -> ModelSATConfig:
        if (self.encoder is None) != (self.representation == "no-encoder"):
            raise ValueError("the representation is 'no-encoder' exactly where encoder is null")
        if self.llm_kind == "bidirectional" and self.head == "verdict":
            raise ValueError("a bidirectional llm predicts no next word: set head to 'regression'")
        return self

    @property
    def n_pooled(self) -> int | None:
        """Capability tokens after attention pooling; None where a representation keeps its own number."""
        return self.n_capability_tokens if self.representation == "per-task" else None

    @property
    def reads_evidence(self) -> bool:
        """Whether the connector reads counts beside the encoded clauses."""
        return self.evidence and self.representation == "per-task"
