import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.text import AnswerText, HistoryText, ItemText, Texts, entity_ids
from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData

ITEMS = pa.table({
    "item_id": ["a", "b", "c", "d"],
    "genres": ["Drama|War", None, "Comedy", None],
    "title": ["Heat  (1995)", "Ran", "", None],
    "cast_list": [["Al", "Bob"], [], None, None],
    "year": [1995, 1985, 2001, 1990],
})  # fmt: skip
KINDS = {"genres": "category", "title": "text", "cast_list": "category", "year": "number"}


def log(label=None):
    user = np.array([1, 1, 1, 1, 1, 2, 2])
    item = np.array([1, 2, 1, 3, 2, 1, 2])
    split = np.array([HISTORY, TRAIN, TRAIN, VALID, TEST, VALID, TEST], np.int8)
    return TrainingData(
        "sequential", IdMap(("u", "v")), IdMap(("a", "b", "c", "d")), user, item, np.arange(7),
        split, label=None if label is None else np.array(label, np.float32),
    )  # fmt: skip


def test_item_text_puts_the_title_first_then_declared_words_in_order():
    got = ItemText().texts(table=ITEMS, fields=KINDS)
    assert got.entity == "item" and got.ids == ("a", "b", "c", "d")
    assert got.texts == (
        "Heat (1995)\ngenres: Drama, War\ncast list: Al, Bob", "Ran", "genres: Comedy", "",
    )  # fmt: skip
    assert got.mask.tolist() == [True, True, True, False]


def test_item_text_of_chosen_columns_may_use_numbers():
    got = ItemText(fields=("year", "title")).texts(table=ITEMS, fields=KINDS)
    assert got.texts[0] == "1995\ntitle: Heat (1995)"
    assert got.texts[3] == "1990"


def test_item_text_reads_integer_ids_and_nan_cells():
    table = pa.table({"item_id": [7, 8], "title": pa.array([None, "x"]), "n": [float("nan"), 2.0]})
    got = ItemText(fields=("title", "n")).texts(table=table)
    assert got.ids == ("7", "8") and got.texts == ("", "x\nn: 2.0")


@pytest.mark.parametrize(
    ("component", "table", "message"),
    [
        (ItemText(("plot",)), ITEMS, "no column 'plot'.*item_id, genres"),
        (ItemText(), pa.table({"item_id": ["a"]}), "declares no text or category column"),
        (ItemText(), pa.table({"user_id": ["a"]}), "not a user table"),
        (ItemText(), pa.table({"id": ["a"]}), "expected a column item_id or user_id"),
        (ItemText(), pa.table({"item_id": ["a", "a"]}), "row 1: id 'a' a second time"),
        (ItemText(), pa.table({"item_id": ["a", None]}), "row 1: no id"),
    ],
)
def test_unusable_tables_say_what_was_expected(component, table, message):
    with pytest.raises(ValueError, match=message):
        component.texts(table=table, fields={})


def test_history_text_reads_training_rows_newest_first_each_item_once():
    got = HistoryText().texts(table=pa.table({"user_id": ["v", "u", "w"]}), log=log(), items=ITEMS)
    assert got.entity == "user" and got.ids == ("v", "u", "w")
    assert got.texts == ("", "Heat (1995); Ran", "")  # rows of validation and test are not told
    assert got.mask.tolist() == [False, True, False]


def test_history_text_starts_with_the_newest():
    data = log()
    data.item[:3] = [1, 2, 2]
    users = pa.table({"user_id": ["u"]})
    assert HistoryText().texts(table=users, log=data, items=ITEMS).texts == ("Ran; Heat (1995)",)
    assert HistoryText(last=1).texts(table=users, log=data, items=ITEMS).texts == ("Ran",)


def test_history_text_keeps_the_newest_and_tells_more_fields_in_brackets():
    users = pa.table({"user_id": ["u"]})
    assert HistoryText(last=1).texts(table=users, log=log(), items=ITEMS).texts == ("Heat (1995)",)
    told = HistoryText(fields=("title", "genres")).texts(table=None, log=log(), items=ITEMS)
    assert told.texts == ("Heat (1995) (Drama, War); Ran", "")


def test_history_text_does_not_change_with_held_out_rows():
    one, other = log(), log()
    other.item[[3, 4, 5, 6]] = 4
    users = pa.table({"user_id": ["u", "v"]})
    texts = [HistoryText().texts(table=users, log=x, items=ITEMS).texts for x in (one, other)]
    assert texts[0] == texts[1]


def test_history_text_of_a_labelled_log_tells_what_was_liked():
    data = log(label=[0, 1, 0, 1, 1, 1, 1])
    users = pa.table({"user_id": ["u"]})
    assert HistoryText().texts(table=users, log=data, items=ITEMS).texts == ("Ran",)
    every = HistoryText(liked=False).texts(table=users, log=data, items=ITEMS)
    assert every.texts == ("Heat (1995); Ran",)


def test_history_text_names_the_missing_context():
    with pytest.raises(ValueError, match=r"HistoryText needs the splits of its task.*context="):
        HistoryText().texts(table=None, items=ITEMS)
    with pytest.raises(ValueError, match="at least 1"):
        HistoryText(last=0)


ANSWERS = pa.table({
    "item_id": ["a", "b", "c", "d"],
    "text": [" a film \n| x |", None, "filled in", ""],
    "status": ["ok", "no_answer", "fallback", "repaired"],
})  # fmt: skip


def test_answer_text_falls_back_on_the_items_words():
    got = AnswerText().texts(table=ANSWERS, items=ITEMS, fields=KINDS)
    assert got.texts == ("a film \n| x |", "Ran", "filled in", "")
    assert got.mask.tolist() == [True, True, True, False]  # its own words are a text of the item


def test_answer_text_without_fallback_leaves_the_row_empty():
    got = AnswerText(fallback="none").texts(table=ANSWERS)
    assert got.texts == ("a film \n| x |", "", "filled in", "")
    assert got.mask.tolist() == [True, False, False, False]


def test_answer_text_of_a_recorded_table_without_statuses_accepts_every_text():
    got = AnswerText(fallback="none").texts(table=ANSWERS.drop_columns("status"))
    assert got.mask.tolist() == [True, False, True, False]


def test_answer_text_with_history_puts_the_answer_first_unless_told_otherwise():
    texts, statuses = ["likes war", None], ["ok", "no_answer"]
    table = pa.table({"user_id": ["u", "v"], "text": texts, "status": statuses})
    switch = {"with_prompt_history": True, "fallback": "none"}
    got = AnswerText(**switch).texts(table=table, log=log(), items=ITEMS)
    assert got.texts == ("likes war\nHeat (1995); Ran", "")
    kar = AnswerText(**switch, answer_first=False).texts(table=table, log=log(), items=ITEMS)
    assert kar.texts == ("Heat (1995); Ran\nlikes war", "")


def test_answer_text_refuses_what_cannot_be():
    users = pa.table({"user_id": ["u"], "text": pa.array([None], pa.string())})
    with pytest.raises(ValueError, match="fallback='none'"):
        AnswerText().texts(table=users, items=ITEMS)
    with pytest.raises(ValueError, match="expected 'item_text' or 'none'"):
        AnswerText(fallback="mean")
    with pytest.raises(DataError, match="needs a column text"):
        AnswerText().texts(table=ITEMS)
    with pytest.raises(ValueError, match="answers about users"):
        AnswerText(with_prompt_history=True, fallback="none").texts(table=ANSWERS)


def test_texts_become_a_table_and_lengths_must_agree():
    texts = Texts("item", ("a", "b"), ("x", ""), np.array([True, False]))
    assert texts.to_table().to_pydict() == {
        "item_id": ["a", "b"], "text": ["x", ""], "own_text": [True, False],
    }  # fmt: skip
    with pytest.raises(ValueError, match="2 ids, 1 texts"):
        Texts("item", ("a", "b"), ("x",), np.ones(2, bool))


def test_entity_ids_names_the_entity():
    assert entity_ids(pa.table({"user_id": [3, 4]})) == ("user", ("3", "4"))
