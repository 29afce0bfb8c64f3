"""Words of a domain: known ones, declared ones, and faults."""

from __future__ import annotations

import pytest

from llmers_pipelines.prompts.domains import DOMAINS, GENERIC, domain_of


def test_named_declared_and_absent() -> None:
    assert domain_of({"domain": "books"}).noun == "book"
    assert domain_of(None) is domain_of({}) is GENERIC
    own = domain_of({"domain": {"noun": "wine", "did": "tasted", "factors": ["grape", "region"]}})
    assert (own.noun, own.plural, own.did) == ("wine", "wines", "tasted")
    assert own.factors == ("grape", "region")
    assert domain_of({"domain": {"noun": "hotel"}}).factors == GENERIC.factors


def test_faults_name_the_mend() -> None:
    with pytest.raises(ValueError, match=r"domain 'film' is not known.*movies"):
        domain_of({"domain": "film"})
    with pytest.raises(ValueError, match="unknown word 'verb'"):
        domain_of({"domain": {"verb": "seen"}})


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_every_domain_has_factors_and_nouns(name: str) -> None:
    domain = DOMAINS[name]
    assert len(domain.factors) >= 6 and len(set(domain.factors)) == len(domain.factors)
    assert domain.noun and domain.plural and domain.did
