"""What candidates can take and do, from the model profiles that LangChain's provider packages ship.

    cd examples/reproduce && python -m links.abilities PACKAGES…

Reads `data/_profiles.py` of each package's folder (derived from models.dev, MIT; unpacked wheels serve) and writes
`abilities.csv`: one row for each candidate of the shipped zoo that a profile names. An earlier package comes first;
retired models are in the packages of their time. A maker's own package is read by the names that the price library
uses for the maker, OpenRouter's by its own.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msat_core import Candidate, Zoo, pretrained

TABLE = Path(__file__).with_name("abilities.csv")
FIELDS = ("name", "modalities", "tools", "context_window", "max_output_tokens", "source")
_INPUTS = {"image_inputs": "image", "audio_inputs": "audio", "video_inputs": "video", "pdf_inputs": "file"}
_OWN = {
    "langchain_openai": ("openai",),
    "langchain_anthropic": ("anthropic",),
    "langchain_google_genai": ("google",),
    "langchain_mistralai": ("mistral",),
    "langchain_xai": ("x-ai", "xai"),
    "langchain_deepseek": ("deepseek",),
    "langchain_aws": ("aws",),
    "langchain_openrouter": ("openrouter",),
}


def profiles(package: Path) -> dict[str, dict[str, Any]]:
    """The profiles of an unpacked package, by model."""
    spec = importlib.util.spec_from_file_location("_profiles", package / "data" / "_profiles.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{package} has no data/_profiles.py: expected the folder of a LangChain provider package.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module._PROFILES)


def row_of(name: str, profile: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A candidate's abilities; what the profile does not state is empty.

    OpenRouter takes a PDF apart for whoever cannot read it, so "file" is left out where there are no images.
    """
    takes = {medium for key, medium in _INPUTS.items() if profile.get(key)}
    if "image" not in takes:
        takes.discard("file")
    return {
        "name": name,
        "modalities": " ".join(sorted({"text", *takes})),
        "tools": profile.get("tool_calling", ""),
        "context_window": profile.get("max_input_tokens") or "",
        "max_output_tokens": profile.get("max_output_tokens") or "",
        "source": source,
    }


def _is_whole(profile: Mapping[str, Any] | None) -> bool:
    """Whether it states all that is read here: of retired models some packages keep a remainder."""
    return profile is not None and {"image_inputs", "tool_calling", "max_input_tokens"} <= profile.keys()


def names_at(candidate: Candidate, makers: tuple[str, ...]) -> Iterator[str]:
    """What a package may call a candidate: as it is priced there, and by its aliases of that maker."""
    tariff = candidate.tariff
    if tariff is not None and tariff.provider in makers:
        yield tariff.model
    for alias in (candidate.name, *candidate.aliases):
        head, _, rest = alias.partition("/")
        if head in makers:
            yield rest
        elif tariff is not None and tariff.provider in makers and not rest:
            yield alias


def main() -> None:
    """Read the packages, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="+", type=Path, help="unpacked, the most believed first")
    found: dict[str, dict[str, Any]] = {}
    zoo = Zoo.load(pretrained.ZOO)
    for package in parser.parse_args().packages:
        known, makers = profiles(package), _OWN[package.name]
        for candidate in zoo:
            named = next((name for name in names_at(candidate, makers) if _is_whole(known.get(name))), None)
            if named is not None and candidate.name not in found:
                found[candidate.name] = row_of(candidate.name, known[named], f"{package.name}: {named}")
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found[c.name] for c in zoo if c.name in found)
    print(f"{len(found)} of {len(zoo)} candidates; none for {', '.join(c.name for c in zoo if c.name not in found)}")


if __name__ == "__main__":
    main()
