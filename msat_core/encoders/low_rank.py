"""A low-rank change of an encoder's weights (LoRA, Hu et al. 2021), merged when the encoder is loaded.

A tuned encoder is shipped as what was added to the published one: for each changed matrix W (out, in)
two factors, ``<module>.down`` (r, in) and ``<module>.up`` (out, r), with W + up @ down in use. Merged, it
costs at serving time what the published encoder costs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msat_core.errors import ArtefactError
from msat_core.tensor_files import Tensor, tensor_bytes

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LowRankDelta:
    """Factors by module name; see the module.

    Attributes:
        tensors: ``<module>.down`` (r, in) and ``<module>.up`` (out, r).
    """

    tensors: Mapping[str, Tensor]

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the factors as a safetensors file."""
        return hashlib.sha256(tensor_bytes(self.tensors)).hexdigest()

    def merge_into(self, model: nn.Module) -> None:
        """Add the change to the model's weights. Raises ArtefactError where it does not fit."""
        import torch

        for module in sorted({name.rpartition(".")[0] for name in self.tensors}):
            try:
                weight = model.get_submodule(module).get_parameter("weight")
                up, down = (torch.from_numpy(self.tensors[f"{module}.{part}"]).float() for part in ("up", "down"))
                with torch.no_grad():
                    weight.add_(up @ down)  # (out, in)
            except (AttributeError, KeyError, RuntimeError) as error:
                raise ArtefactError(f"The encoder's low-rank delta does not fit at {module!r} ({error}).") from None
