"""Money: by hand, and faults that name their place."""

from __future__ import annotations

import pytest

from llmers_pipelines.config import ConfigError, load_settings
from llmers_pipelines.prices import Price


def test_tokens_cost_what_the_table_says():
    price = Price(input=2.0, output=8.0, cached_input=0.5, batch=0.5)
    assert price.tokens(1_000_000, 500_000) == pytest.approx(6.0)
    assert price.tokens(1_000_000, 500_000, cached=400_000) == pytest.approx(1.2 + 0.2 + 4.0)
    assert price.tokens(1_000_000, 500_000, batch=True) == pytest.approx(3.0)


def test_prices_come_from_the_toml(tmp_path):
    toml = tmp_path / "llmers.toml"
    toml.write_text('[prices."some/model"]\ninput = 0.4\noutput = 1.6\n')
    assert load_settings(config=str(toml)).prices == {"some/model": Price(input=0.4, output=1.6)}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("inptu = 1.0", "unknown 'inptu'"),
        ('input = "cheap"', "not a number"),
        ("output = -1", "is negative"),
    ],
)
def test_a_wrong_price_is_named(tmp_path, line, reason):
    toml = tmp_path / "llmers.toml"
    toml.write_text(f"[prices.m]\n{line}\n")
    with pytest.raises(ConfigError, match=reason) as error:
        load_settings(config=str(toml))
    assert "llmers.toml" in str(error.value)
    assert '[prices."m"]' in str(error.value)
