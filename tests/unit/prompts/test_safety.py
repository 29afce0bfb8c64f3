"""Checks of generated texts: what they find, what they must leave alone, and what follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llmers_pipelines.orchestrate.checks import checks_of
from llmers_pipelines.orchestrate.steps.safety import check_texts
from llmers_pipelines.plan import Generate, Table
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.prompts.safety import examine, masked
from llmers_pipelines.prompts.safety.language import guess
from llmers_pipelines.prompts.safety.pii import valid_card, valid_iban
from llmers_pipelines.prompts.safety.words import parse_words
from llmers_pipelines.prompts.user_preference import UserPreference
from llmers_pipelines.safety import Safety, default_safety, read_safety

HERE = Path(".")


def kinds(text: str, check: str, **options: Any) -> list[str]:
    safety = read_safety("test", {check: options} if options or check else {}, HERE)
    chosen = [c for c in safety.checks if c.name == check]
    return [f.kind for f in examine([text], chosen)[0]]


@pytest.mark.parametrize(("text", "wanted"), [
    ("The user, a 24-year-old male technician, likes drama.", ["age", "gender"]),
    ("The user is likely an adult female with an interest in skincare.", ["age", "gender"]),
    ("As a young female viewer, she enjoys musicals.", ["gender"]),
    ("The reader appears to be a devout Catholic.", ["religion", "religion"]),
    ("He is possibly gay and lives alone.", ["sexual_orientation"]),
    ("The customer suffers from eczema and buys gentle soap.", ["health"]),
    ("The user's religion shapes what they watch.", ["religion"]),
    ("This user identifies as a Republican.", ["politics"]),
    ("The user is a single mother of two.", ["family_status"]),
    ("The user is in her mid-50s.", ["age"]),
    ("The user is likely of Asian descent.", ["ethnicity"]),
    ("The user votes Republican.", ["politics"]),
    ("The user is widowed.", ["family_status"]),
])  # fmt: skip
def test_attributes_that_a_text_says_of_a_person(text: str, wanted: list[str]) -> None:
    assert kinds(text, "protected_attributes") == wanted


@pytest.mark.parametrize("text", [
    "The user enjoys films about Christian saints and gay romance.",
    "The user is a fan of black comedy and British cinema.",
    "The user is drawn to religious films with strong female characters.",
    "Liked most: \"Rain Man\", \"The American President\" and \"Married to the Mob\".",
    "They dislike children's films and teen horror.",
    "The user likes conflicts, whether they are man versus nature or man versus society.",
    "The user's gender cannot be determined from the given data.",
    "Dislikes the portrayal of gay individuals in a negative light.",
    "The user is interested in mental health and in Jewish history.",
    "The user is a Christian film lover.",
    "The user enjoys stories about women of Asian descent and Republican voters.",
])  # fmt: skip
def test_a_taste_is_no_attribute_of_the_person(text: str) -> None:
    assert kinds(text, "protected_attributes") == []


def test_mentions_categories_and_own_words(tmp_path: Path) -> None:
    text = "The user is a male fan of gay romance and of the Zorblax cult."
    check = "protected_attributes"
    assert kinds(text, check) == ["gender"]
    assert kinds(text, check, mentions=True) == ["gender", "sexual_orientation"]
    assert kinds(text, check, categories=["religion"]) == []
    own = tmp_path / "own.txt"
    own.write_text("# ours\nzorblax\n!Zorblax cult film\n[religion]\nre: pasta\\w+\n")
    assert kinds(text, check, words=[str(own)]) == ["gender", "listed"]
    assert kinds("A Zorblax cult film.", check, words=[str(own)]) == []
    assert kinds("The user is a Pastafarian.", check, words=[str(own)]) == ["religion"]
    assert kinds(text, check, words=[str(own)], packaged=False) == ["listed"]
    with pytest.raises(ValueError, match="'sport' is in no word list"):
        kinds(text, check, categories=["sport"])
    with pytest.raises(ValueError, match=r"own, line 2: 're: \(': "):
        parse_words((("own", "fine\nre: ("),))


@pytest.mark.parametrize(("text", "wanted"), [
    ("Write to mira.voss+shop@example.co.uk today.", ["email"]),
    ("Her number is +49 30 1234 5678 or (555) 123-4567.", ["phone", "phone"]),
    ("Pays from DE89 3704 0044 0532 0130 00 each month.", ["iban"]),
    ("Pays from DE89 3704 0044 0532 0130 01 each month.", []),
    ("The card 4111 1111 1111 1111 was used.", ["card"]),
    ("The card 4111 1111 1111 1112 was used.", []),
    ("Seen from 192.168.1.20 and 2001:0db8:85a3:0000:0000:8a2e:0370:7334.", ["ip", "ip"]),
    ("Version 1.2.3.400 and 12.5 hours of 1999-2001.", []),
    ("SSN 536-22-1234 and ISBN 978-3-16-148410-0.", ["ssn"]),
    ("Lives at 12 Harbour Street with a cat.", ["address"]),
    ("Sent to 12 Harbour Street, Salem, MA 01970.", ["address"]),
    ("Liked \"84 Charing Cross Road\" and 21 Jump Street, rated 4.", []),
    ("Call 0049 30 123456 or 06 12 34 56 78.", ["phone", "phone"]),
    ("Came from fe80::1ff:fe23:4567:890a and ::1 today.", ["ip", "ip"]),
    ("Likes Star Wars::Episode and std::cafe; aspect 16:9; at 06 12 sharp; 00 7.", []),
    ("Watched 300 movies in 2003, mean rating 3.75 of 5 (1,204 users).", []),
])  # fmt: skip
def test_personal_data(text: str, wanted: list[str]) -> None:
    assert kinds(text, "pii") == wanted


def test_check_digits() -> None:
    assert valid_card("4111111111111111") and valid_card("378282246310005")
    assert not valid_card("4111111111111121") and not valid_card("0000000000000000")
    assert valid_iban("GB82 WEST 1234 5698 7654 32")
    assert not valid_iban("GB82 WEST 1234 5698 7654 33")


@pytest.mark.parametrize(("text", "wanted"), [
    ("Sorry, but I cannot provide a summary of this user.", ["declines"]),
    ("As an AI language model, it likes nothing.", ["speaks of itself"]),
    ("A warm tale. Let me know if you need more.", ["chat"]),
    ("Unable to comply with this request.", ["declines"]),
    ("He was unable to help his brother; a hero unable to answer.", []),
    ("A man says he cannot provide for his family, as an AI film would show.", []),
    ("\"Say You're Sorry\" is a thriller about lies.", []),
])  # fmt: skip
def test_refusals(text: str, wanted: list[str]) -> None:
    assert kinds(text, "refusal") == wanted


def test_boilerplate_is_what_many_rows_share_or_what_loops() -> None:
    shared = "The user values character driven stories."
    texts = [f"{shared} Number {n} likes the sea and old clocks best." for n in range(9)]
    texts += [f"Something else entirely is said about row {n} here." for n in range(3)] + [None]
    checks = read_safety("t", {"boilerplate": {"least_rows": 9}}, HERE).checks[3:4]
    assert [c.name for c in checks] == ["boilerplate"]
    found = examine(texts, checks)
    assert [len(f) for f in found] == [1] * 9 + [0] * 4
    assert found[0][0].evidence == f"9 of 12 texts: {shared}"
    many = read_safety("t", {"boilerplate": {"least_rows": 10}}, HERE).checks[3:4]
    assert not any(examine(texts, many))
    loop = "a mix of drama and comedy, the setting is " * 12
    assert kinds(loop, "boilerplate") == ["repeats itself"]


@pytest.mark.parametrize(("text", "language"), [
    ("The user enjoys quiet dramas and stories of the sea that end well for all of them.", "en"),
    ("Der Nutzer mag ruhige Dramen und Geschichten vom Meer, die für alle gut ausgehen.", "de"),
    ("L'utilisateur aime les drames calmes et les histoires de la mer avec une belle fin.", "fr"),
    ("Al usuario le gustan los dramas tranquilos y las historias del mar con un buen final.", "es"),
    ("De gebruiker houdt van rustige drama's en van verhalen over de zee die goed aflopen.", "nl"),
    ("Пользователь любит спокойные драмы и истории о море.", "ru"),
    ("基于用户喜欢的电影列表，推断出以下信息", "zh"),
    ("ユーザーは静かなドラマが好きです", "ja"),
    ("The user likes \"Das Boot\", \"La Vita e Bella\" and other films about a war.", "en"),
    ("Horror, crime, war.", "unknown"),
])  # fmt: skip
def test_languages(text: str, language: str) -> None:
    assert guess(text)[0] == language
    expected = [] if language in ("en", "unknown") else [language]
    assert kinds(text, "language") == expected


def scores(texts: list[str]) -> list[float]:
    return [0.9 if "vile" in text else 0.1 for text in texts]


def nothing(texts: list[str]) -> list[float]:
    return []


def test_toxicity_by_the_users_words_or_classifier(tmp_path: Path) -> None:
    file = tmp_path / "bad.txt"
    file.write_text("[slur]\nsnark*\n")
    assert kinds("A snarky, vile remark.", "toxicity", words=[str(file)]) == ["slur"]
    named = f"{__name__}:scores"
    assert kinds("A vile remark.", "toxicity", classifier=named) == ["classifier"]
    assert kinds("A kind remark.", "toxicity", classifier=named) == []
    assert kinds("A vile remark.", "toxicity", classifier=named, threshold=0.95) == []
    with pytest.raises(ValueError, match="No module named 'nowhere'"):
        kinds("A vile remark.", "toxicity", classifier="nowhere:f")
    with pytest.raises(ValueError, match="gave 0 scores for 1 texts"):
        kinds("A remark.", "toxicity", classifier=f"{__name__}:nothing")


@pytest.mark.parametrize(("function", "says"), [
    ("os.path:getsize", r"failed on a list of 1 texts \(TypeError: .*path"),
    ("builtins:int", "failed on a list of 1 texts"),
    ("builtins:sorted", "a score that is no number"),
    ("{name}:unsure", "1 scores that are not a number"),
])  # fmt: skip
def test_a_classifier_of_another_shape_is_named_with_its_setting(function: str, says: str) -> None:
    named = function.format(name=__name__)
    with pytest.raises(ValueError, match=says) as error:
        kinds("A remark.", "toxicity", classifier=named)
    assert f'[safety.toxicity] classifier = "{named}"' in str(error.value)


def unsure(texts: list[str]) -> list[float]:
    return [float("nan") for _ in texts]


def test_masks_cover_what_was_found() -> None:
    body = {"pii": {"action": "mask"}, "protected_attributes": {"action": "mask"}, "refusal": {}}
    checks = read_safety("t", body, HERE).checks
    text = "The user is a male reader, mira@example.org, who is as an AI."
    assert masked(text, checks) == "The user is a [gender] reader, [email], who is as an AI."


@pytest.mark.parametrize(("body", "message"), [
    ({"pi": {}}, "unknown 'pi'; did you mean 'pii'?"),
    ({"pii": {"actoin": "mask"}}, "unknown 'actoin'; did you mean 'action'?"),
    ({"pii": {"action": "drop"}}, "action = 'drop'; one of keep, mask, hold"),
    ({"pii": {"blocking": "yes"}}, "blocking = 'yes'; expected a bool"),
    ({"pii": {"max_share": 5}}, "max_share = 5.0; expected 0 to 1"),
    ({"language": {"action": "mask"}}, "judges a whole text"),
    ({"toxicity": {}}, 'give words = ["file"] or classifier'),
    ({"toxicity": {"words": ["none.txt"]}}, "words: no file"),
    ({"checks": ["pii", "spam"]}, "unknown 'spam'"),
    ({"pii": True}, "must be a table [safety.pii]"),
    ({"toxicity": {"classifier": ["a:b"]}}, "classifier = ['a:b']; expected a str"),
    ({"toxicity": {"words": [["x"]]}}, "words = [['x']]; expected a list of texts"),
    ({"protected_attributes": {"categories": [3]}}, "categories = [3]; expected a list of texts"),
    ({"assets": 3}, "assets = 3; expected a list of texts"),
    ({"checks": [["pii"]]}, "checks = [['pii']]; expected a list of texts"),
])  # fmt: skip
def test_wrong_settings_are_named(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        read_safety("llmers.toml", body, HERE)
    assert message in str(error.value) and "llmers.toml: [safety" in str(error.value)


def test_a_masked_attribute_is_not_repeated_in_its_finding() -> None:
    table = answers().set_column(1, "text", [["The user is a diabetic.", "Calm.", None]])
    body = {"checks": [], "protected_attributes": {"action": "mask"}}
    rows = check_texts(table, read_safety("t", body, HERE).checks)[0].to_pylist()
    assert rows[0]["text"] == "The user is a [health]." and "diabetic" not in str(rows[0])
    assert rows[0]["safety"][0]["evidence"] == "health of 8 characters"


def test_which_checks_read_which_assets() -> None:
    names = [c.name for c in default_safety().of("user_profiles")]
    assert names == ["protected_attributes", "pii", "refusal", "boilerplate", "language"]
    assert [c.name for c in default_safety().of("item_summaries")] == names[1:]
    assert [c.name for c in read_safety("t", {"checks": ["pii"]}, HERE).checks] == ["pii"]
    only = read_safety("t", {"assets": ["item_summaries"], "pii": {"assets": []}}, HERE)
    assert [c.name for c in only.of("user_profiles")] == ["pii"]
    profile, item = Generate(UserPreference(), Table("users")), Generate(ItemKnowledge())
    blocking = read_safety("t", {"checks": [], "pii": {"blocking": True}}, HERE)
    plain = ["no_leakage", "coverage", "quarantine_small"]
    assert [c.name for c in checks_of(profile)] == [*plain, "no_held_out_title"]
    assert [c.name for c in checks_of(item)] == plain
    own = checks_of(item, blocking)[3:]
    assert [(c.name, c.blocking) for c in own] == [("safety_pii", True)]


def test_the_version_follows_settings_and_files(tmp_path: Path) -> None:
    file = tmp_path / "bad.txt"
    file.write_text("snark\n")
    body = {"checks": [], "toxicity": {"words": ["bad.txt"]}}
    first = read_safety("t", body, tmp_path).version("user_profiles")
    assert first == read_safety("t", body, tmp_path).version("user_profiles") != ""
    file.write_text("snark\ngrump\n")
    assert read_safety("t", body, tmp_path).version("user_profiles") != first
    assert Safety().version("user_profiles") == ""


def answers() -> pa.Table:
    rows = {
        "item_id": ["1", "2", "3"],
        "text": ["Mail a@example.org.", "A quiet tale.", None],
        "mood": ["calm a@example.org", "calm", None],
        "status": ["ok", "ok", "no_answer"],
        "reason": [None, None, "no recorded answer"],
        "raw": ['{"x": "a@example.org"}', "{}", None],
        "request_key": ["k1", "k2", "k3"],
    }
    return pa.table({name: pa.array(values, pa.string()) for name, values in rows.items()})


def judged(action: str, **more: Any) -> tuple[list[dict[str, Any]], Any]:
    body = {"checks": [], "pii": {"action": action, **more}}
    table, found = check_texts(answers(), read_safety("t", body, HERE).checks)
    return table.to_pylist(), found


def test_findings_are_a_column_and_a_check() -> None:
    assert check_texts(answers(), ())[0].equals(answers())
    rows, found = judged("keep")
    assert [len(r["safety"]) for r in rows] == [1, 0, 0]
    assert rows[0]["safety"][0] == {
        "check": "pii", "kind": "email", "evidence": "email of 13 characters", "start": 5,
        "end": 18, "action": "keep",
    }  # fmt: skip
    assert rows[0]["text"] == "Mail a@example.org." and rows[2]["status"] == "no_answer"
    (check,) = found.checks
    assert not check.passed and not check.blocking and check.details["share"] == 0.5
    assert "50.0% of the texts" in check.details["why"] and check.details["rows"] == "1"
    assert found.counts == {"safety_pii": 1, "held": 0, "masked": 0}
    assert judged("keep", max_share=0.5)[1].checks[0].passed
    assert judged("keep", blocking=True)[1].checks[0].blocking


def test_a_masked_row_shows_it_nowhere_and_a_held_one_keeps_its_raw_answer() -> None:
    rows, found = judged("mask")
    assert rows[0]["text"] == "Mail [email]." and rows[0]["mood"] == "calm [email]"
    assert "example" not in str(rows[0]) and rows[0]["status"] == "ok"
    assert found.counts == {"safety_pii": 1, "held": 0, "masked": 1}
    rows, found = judged("hold")
    assert rows[0] | {"safety": 0} == {
        "item_id": "1", "text": None, "mood": None, "status": "held", "request_key": "k1",
        "reason": "held by a safety check: pii (email)", "raw": '{"x": "a@example.org"}',
        "safety": 0,
    }  # fmt: skip
    assert len(rows) == 3 and rows[1]["status"] == "ok" and found.counts["held"] == 1
