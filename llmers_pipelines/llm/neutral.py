"""Special tokens of a tokenizer in texts that we send: broken, so that none is read as a command.

A chat template writes control tokens around the messages. Where a catalog text (or an answer that
is sent back for repair) spells one of them, most tokenizers encode it as the real token, and the
text ends its message or begins another role. ``neutralize`` puts a space behind the first character
of each such spelling (``< |im_start|>``): visible, readable, and undone by ``restore``. Engines
name their tokenizer's tokens as ``EngineInfo.marks``; requests are neutralized before their key is
computed, so the key is that of what was sent, and a text without such tokens keeps its key.
"""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .protocol import GenRequest, Marks, Message

# For an engine whose tokenizer is not at hand (a remote endpoint): marks of widespread templates.
COMMON = Marks((
    "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<|endoftext|>", "<|im_start|>",
    "<|im_end|>", "<|im_sep|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<start_of_turn>",
    "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|start|>",
    "<|message|>", "<|channel|>", "<|return|>", "<|call|>", "[INST]", "[/INST]", "<<SYS>>",
    "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "<think>", "</think>", "<tool_call>",
    "</tool_call>", "<tool_response>", "</tool_response>", "<\uff5cUser\uff5c>",
    "<\uff5cAssistant\uff5c>",
))  # fmt: skip
_SHAPE = re.compile(r"<.+>|\[.+\]|\|.+\|", re.DOTALL)  # how a mark looks that is no plain word
_IN_TEMPLATE = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<</?\w+>>|</?[a-z_]{2,40}>|\[/?[A-Z][A-Z_]{2,40}\]"
)
_FOLDING = {"NFKC", "NFKD", "NFC", "NFD", "Lowercase", "BertNormalizer", "StripAccents", "Nmt",
            "Precompiled", "Strip"}  # fmt: skip
# What folding normalizers drop: combining accents, zero-width and soft characters.
_DROPPED = "\u00ad\u0300-\u036f\u200b-\u200f\u2060\ufeff"


def neutralize(text: str, marks: Marks) -> str:
    """Return ``text`` in which no mark is spelled any more; equal where there was none."""
    return _edit(text, marks, add=True)


def restore(text: str, marks: Marks) -> str:
    """Return what ``neutralize`` made ``text`` from."""
    return _edit(text, marks, add=False)


def found_marks(text: str, marks: Marks) -> list[str]:
    """Return the spellings of marks in ``text``, in order, each once."""
    if not marks.texts:
        return []
    rule = _rule(marks)
    hits = (rule.rest.match(text, at.start()) for at in rule.first.finditer(text))
    return list(dict.fromkeys(hit[0] for hit in hits if hit))


def neutral_request(request: GenRequest, marks: Marks) -> GenRequest:
    """Return ``request`` with neutralized messages; the same object where nothing changes."""
    messages = tuple(neutral_message(m, marks) for m in request.messages)
    if messages == request.messages:
        return request
    return dataclasses.replace(request, messages=messages)


def neutral_message(message: Message, marks: Marks) -> Message:
    """Return ``message`` with its text, or the texts among its parts, neutralized."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": neutralize(content, marks)}
    parts = [{**p, "text": neutralize(p["text"], marks)} if isinstance(p.get("text"), str) else p
             for p in content]  # fmt: skip
    return {**message, "content": parts}


def tokenizer_marks(folder: Path) -> Marks:
    """Return the marks of the tokenizer in ``folder``, from its files alone.

    These are its special tokens, added tokens in the shape of a mark (``<think>``), and marks that
    its chat template writes as plain text (``[INST]``). Added words and runs of blanks are none.
    """
    texts: dict[str, None] = {}
    whole, config = _json(folder / "tokenizer.json"), _json(folder / "tokenizer_config.json")
    added = [*whole.get("added_tokens", ()), *config.get("added_tokens_decoder", {}).values()]
    for token in added:
        if isinstance(token, Mapping):
            _collect(texts, [token.get("content")], special=bool(token.get("special")))
    _collect(texts, _json(folder / "added_tokens.json"), special=False)
    for named in (_json(folder / "special_tokens_map.json"), config):
        for name, value in named.items():
            if name.endswith("_token") or name.endswith("special_tokens"):
                values = value if isinstance(value, list) else [value]
                _collect(texts, (v.get("content") if isinstance(v, Mapping) else v
                                 for v in values), special=True)  # fmt: skip
    for template in _templates(folder, config):
        texts |= dict.fromkeys(_IN_TEMPLATE.findall(template))
    return Marks(tuple(texts), folds=bool(_types(whole.get("normalizer")) & _FOLDING))


def _collect(texts: dict[str, None], found: Iterable[Any], *, special: bool) -> None:
    for text in found:
        if isinstance(text, str) and text.strip() and (special or _SHAPE.fullmatch(text.strip())):
            texts[text] = None


def _templates(folder: Path, config: Mapping[str, Any]) -> list[str]:
    found = [config.get("chat_template"), _json(folder / "chat_template.json").get("chat_template")]
    file = folder / "chat_template.jinja"
    found.append(file.read_text(encoding="utf-8") if file.is_file() else None)
    flat = [t for entry in found for t in (entry if isinstance(entry, list) else [entry])]
    return [t["template"] if isinstance(t, Mapping) else t for t in flat if t]


def _json(path: Path) -> dict[str, Any]:
    body = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return body if isinstance(body, dict) else {}


def _types(node: Any) -> set[str]:
    """Return the type names of a normalizer and of those inside it."""
    if isinstance(node, list):
        return set().union(*map(_types, node))
    if not isinstance(node, Mapping):
        return set()
    return {str(node.get("type"))} | _types(node.get("normalizers"))


@dataclass(frozen=True)
class _Rule:
    """``first``: where a mark may begin. ``rest``: a whole mark, breaks between its characters
    allowed. ``gap``: what stands behind the first character, breaks first."""

    first: re.Pattern[str]
    rest: re.Pattern[str]
    gap: str


@lru_cache(maxsize=64)
def _rule(marks: Marks) -> _Rule:
    # No mark holds the break, so a break never makes a mark, and one behind the first character
    # of each leaves none. Breaks that were there before are counted as well: that makes it
    # reversible (one more, one less).
    gap = next((c for c in " \u00b7\u2060" if not any(c in t for t in marks.texts)), "\ufff9")
    between = f"[{re.escape(gap)}{_DROPPED if marks.folds else ''}]*"
    # A mark of one character cannot be split: it is written as its code point instead.
    names = (f"(U+{ord(t):04X})" for t in marks.texts if len(t) == 1)
    spelled = sorted({*(t for t in marks.texts if len(t) > 1), *names}, key=len, reverse=True)
    letter = _folded if marks.folds else re.escape
    rest = "|".join(between.join(map(letter, text)) for text in spelled)
    first = "|".join(sorted({letter(text[0]) for text in spelled}))
    return _Rule(re.compile(first), re.compile(rest), gap)


def _edit(text: str, marks: Marks, *, add: bool) -> str:
    if not marks.texts:
        return text
    rule = _rule(marks)
    single = {t: f"(U+{ord(t):04X})" for t in marks.texts if len(t) == 1}
    if not add:
        for mark, name in single.items():
            text = text.replace(name, mark)
    starts = [at.start() for at in rule.first.finditer(text) if rule.rest.match(text, at.start())]
    parts, done = [], 0
    for start in starts:
        parts.append(text[done : start + 1])
        done = start + 1 if add else start + 1 + text.startswith(rule.gap, start + 1)
        parts.append(rule.gap if add else "")
    out = "".join([*parts, text[done:]])
    if add:
        for mark, name in single.items():
            out = out.replace(mark, name)
    return out


def _folded(character: str) -> str:
    """Return a pattern of every character that normalizers may turn into ``character``."""
    same = _by_folding().get(character.casefold(), "")
    alike = {character, character.lower(), character.upper(), *same}
    return "[" + "".join(re.escape(c) for c in sorted(alike) if len(c) == 1) + "]"


@lru_cache(maxsize=1)
def _by_folding() -> dict[str, str]:
    """Return, per plain character, those that compatibility, case and accents tell from it."""
    found: dict[str, list[str]] = defaultdict(list)
    for code in (*range(0x80, 0xD800), *range(0xE000, 0x1FB00)):
        plain = unicodedata.normalize("NFKD", chr(code)).casefold()
        plain = "".join(c for c in plain if not unicodedata.combining(c))
        if len(plain) == 1 and plain.isascii():
            found[plain].append(chr(code))
    return {plain: "".join(same) for plain, same in found.items()}
