"""The examples of a documentation page, and what two of them have in common."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"```(\S*)\n(.*?)^```$|^#+ ([^\n]*)$", re.DOTALL | re.MULTILINE)

EXACT = {
    "id", "object", "model", "node", "index", "role", "finish_reason", "code", "type", "command",
    "state", "cancelled", "prompt_tokens", "family", "layers", "hidden_size", "heads", "kv_heads",
    "vocab_size", "context_length", "limits", "queue_depth", "max_payload_bytes",
    "max_prompt_bytes", "max_tokens", "name", "version", "created_by",
}  # fmt: skip
"""Fields whose values are the same whenever and wherever an example is run."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    name: str
    """The words of its heading, its language, and its number there: `ask/sh/1`."""
    language: str
    text: str


def blocks(page: Path) -> dict[str, Block]:
    """All fenced blocks of a page by their names, in their order."""
    text = page.read_text(encoding="utf-8")
    found, counts, heading = {}, Counter(), ""
    for match in _FENCE.finditer(text):
        language, body, title = match.groups()
        if title is not None:
            # "`chaski/<node>/ask`" is known as "ask".
            heading = title.replace("`", "").rsplit("/", 1)[-1].lower()
            continue
        counts[heading, language] += 1
        name = f"{heading}/{language}/{counts[heading, language]}"
        assert name not in found, f"two blocks of {page} are called {name}"
        found[name] = Block(name, language, body)
    # None may be lost to a fence that is written in another way.
    fences = re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)
    assert len(fences) == 2 * len(found), f"{page} has fences that are not understood"
    return found


def differences(shown, given, place: str = "") -> list[str]:
    """Where a JSON value is not of the shape that an example shows."""
    if isinstance(shown, dict) and isinstance(given, dict):
        if shown.keys() != given.keys():
            return [f"{place}: the fields {sorted(shown.keys() ^ given.keys())}"]
        return [
            each
            for key in shown
            for each in _differences_at(key, shown[key], given[key], f"{place}.{key}")
        ]
    if isinstance(shown, list) and isinstance(given, list):
        if len(shown) != len(given):
            return [f"{place}: {len(given)} values in place of {len(shown)}"]
        pairs = enumerate(zip(shown, given))
        return [each for i, pair in pairs for each in differences(*pair, f"{place}[{i}]")]
    if _kind(shown) is not _kind(given):
        return [f"{place}: {given!r} in place of something like {shown!r}"]
    return []


def _differences_at(key: str, shown, given, place: str) -> list[str]:
    if key in EXACT and not isinstance(shown, (dict, list)) and shown != given:
        return [f"{place}: {given!r} in place of {shown!r}"]
    return differences(shown, given, place)


def _kind(value) -> type:
    """0 and 0.5 are numbers alike; true is none."""
    return float if type(value) is int else type(value)
