"""Reasons to refuse an answer, on the kinds of answers that real models gave."""

from __future__ import annotations

import pytest

from llmers_pipelines.prompts.checks import (
    about_item,
    content_words,
    echo,
    invented_titles,
    normal,
    refusal,
    repetition,
    thin,
)

HEAT = {
    "title": "Heat (1995)",
    "genres": "Action|Crime",
    "director": "Michael Mann",
    "actors": "Al Pacino|Val Kilmer",
    "overview": "A dedicated detective hunts a disciplined crew of professional robbers downtown.",
}


@pytest.mark.parametrize(
    "text",
    [
        "Sorry, but I am unable to generate a book description for this title.",
        "Unfortunately, I cannot provide a description without the title.",
        "I don\u2019t have any information on a book titled X.",
        "As an AI language model, I have no opinion.",
        "There is no information available about this product.",
        "Thorn follows a young woman named {title} as she navigates the world.",
        "The [insert title] is a film.",
        "</item> The film is fine.",
    ],
)
def test_refusals_and_placeholders(text: str) -> None:
    assert refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "An android lives as an AI among people and learns what sorrow is.",
        "A detective who is sorry for what he did cannot forget it.",
        "The robot cannot help the child that it was built for.",
    ],
)
def test_stories_about_machines_and_regret_are_no_refusals(text: str) -> None:
    assert not refusal(text)


def test_repetition() -> None:
    loop = "The user likes long films about the sea. " * 12
    assert "repeats itself" in repetition(loop)
    assert not repetition("The user likes long films about the sea. " * 2)
    prose = " ".join(f"word{n} other{n} third{n}" for n in range(60))
    assert not repetition(prose)


def test_echo() -> None:
    titles = ["Heat (1995)", "Star Wars (1977)", "Pulp Fiction (1994)", "Matrix, The (1999)"]
    listing = "Heat, Star Wars, Pulp Fiction, The Matrix are films that the user likes."
    assert echo(listing, titles)
    assert not echo("The user likes tense crime stories such as Heat and Pulp Fiction.", titles)


def test_thin() -> None:
    assert thin('"Chrzest ognia" is a book.', ["Chrzest ognia", "book"], least=3)
    assert not thin("Chrzest ognia continues the saga of a witcher.", ["Chrzest ognia"], least=3)


@pytest.mark.parametrize(
    "text",
    [
        "Heat sets a policeman against a thief.",
        "Val Kilmer and others rob banks.",
        "Mann's film about two obsessed men.",
        "A detective hunts robbers who are disciplined and professional.",
    ],
)
def test_supported_by_title_person_or_description(text: str) -> None:
    assert about_item(text, HEAT) == ""


def test_text_about_something_else_is_refused() -> None:
    reason = about_item("A young pig becomes a sheepdog in this crime and action story.", HEAT)
    assert "Heat (1995)" in reason
    assert about_item("A dedicated pig becomes a professional sheepdog.", HEAT)  # two words chance


def test_category_counts_only_where_there_is_nothing_else() -> None:
    row = {"department": "GROCERY", "product_category": "CRACKERS"}
    assert about_item("Crackers from the grocery shelf.", row) == ""
    assert about_item("A shampoo.", row)
    assert about_item("Anything at all.", {"item_id": "1"}) == ""


def test_titles_in_parentheses_and_short_titles() -> None:
    row = {"title": "Farewell My Concubine (Ba wang bie ji) (1993)"}
    assert about_item("Ba wang bie ji follows two opera singers.", row) == ""
    assert about_item("It follows two opera singers.", row)
    assert about_item("In \u201cIt\u201d a clown haunts a town.", {"title": "It"}) == ""


def test_invented_titles() -> None:
    titles = ["Matrix, The (1999)", "Heat (1995)"]
    text = 'Likes "The Matrix" and "Heat", calls them "slice of life", but not "The Fox And Hound".'
    assert invented_titles(text, titles) == ["The Fox And Hound"]


def test_normal_words() -> None:
    assert normal("L'Été, doesn\u2019t IT?") == "lete doesnt it"
    assert content_words("The war of the War Room") == ["war", "room"]
