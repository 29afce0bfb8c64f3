"""Every split protocol can be used: its asset is made and holds nothing behind it back."""

from __future__ import annotations

import pytest
from shop import Shop, same_environment

from llmers_pipelines.data.split_spec import PROTOCOLS

SPLITS = "catalog/splits__sequential"
CASES = {
    "leave_one_out": [""],
    "time": [""],
    "given": ['column = "part"'],
    "random": ['by = "user"', 'by = "row"'],
    "cold_item": ['cold_by = "hash"', 'cold_by = "time"'],
    "cold_user": [""],
}


def test_each_protocol_has_a_case():
    assert CASES.keys() == PROTOCOLS.keys()


@pytest.mark.parametrize(
    ("protocol", "options"), [(p, o) for p, options in CASES.items() for o in options]
)
def test_a_split_of_each_protocol_is_made_and_passes_its_checks(tmp_path, protocol, options):
    shop = Shop.open(tmp_path)
    rows = shop.read("interactions")
    parts = ("train",) * 7 + ("valid", "test")
    shop.write("interactions", [r | {"part": parts[n % 9]} for n, r in enumerate(rows)])
    toml = shop.folder / "shop.toml"
    old = 'protocol = "leave_one_out"'
    toml.write_text(toml.read_text().replace(old, f'protocol = "{protocol}"\n{options}', 1))
    with same_environment():
        assert shop.work(SPLITS)[SPLITS] == "materialized"
        manifest = shop.manifest(SPLITS)
    assert manifest.counts["protocol"] == protocol and not manifest.held_by
    assert {c.name: c.passed for c in manifest.checks} == {
        "splits_disjoint": True, "no_future": True,
    }  # fmt: skip
