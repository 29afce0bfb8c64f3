"""Keeps the key of an endpoint out of texts that an endpoint, or a provider's file, sends back."""

from __future__ import annotations

HIDDEN = "[key]"
SHORTEST = 8  # a shorter key may be an ordinary word of an answer
# What people set where a server checks no key: words that an answer may hold by right.
DUMMIES = frozenset({
    "anything", "api-key", "api_key", "apikey", "changeme", "dummy", "dummy-key", "empty", "fake",
    "fake-key", "lm-studio", "local", "localhost", "no-key", "no-key-required", "no_key", "nokey",
    "none", "not-needed", "not-required", "not-used", "notneeded", "null", "ollama", "openai",
    "password", "placeholder", "required", "secret", "sk-dummy", "sk-no-key-required",
    "sk-not-needed", "test", "test-key", "token", "token-abc123", "undefined", "unused",
    "your-api-key", "your_api_key",
})  # fmt: skip


def without_key(text: str, key: str, *, always: bool = False) -> str:
    """Return ``text`` with ``key`` hidden; ``always`` hides short and well-known keys as well.

    Messages are scrubbed always. Answers keep keys that protect nothing, because these may be words
    of theirs.
    """
    if key and (always or (len(key) >= SHORTEST and key.lower() not in DUMMIES)):
        return text.replace(key, HIDDEN)
    return text
