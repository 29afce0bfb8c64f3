"""The changes that a catalog and a project live through, and what each may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from notes_shop import CATALOG, NotesShop

NOTE, VECTORS = "item_summaries/book_note", "llm_embeddings/book_note"
AXES, TABLE = "features/axes__dim8__book_note", "catalog/items"
METHOD = "recommenders/shop_notes__sasrec__dim8__inner16__max_len10__fit__epochs2__min_epochs1"
BASE = "recommenders/sasrec__dim8__inner16__max_len10__fit__epochs2__min_epochs1"
CHAMPION = "registry/champion__sequential"


@dataclass(frozen=True)
class Case:
    """One edit. ``calls`` of the language model; ``made`` and ``kept`` are among the assets that do
    work, or not; ``held`` by a failed check; ``runs`` False: nothing may run.
    """

    name: str
    edit: Callable[[NotesShop], None]
    calls: int = 0
    made: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    runs: bool = True
    held: str = ""
    trained: int | None = None  # cells that were trained; extended ones do not count


def _retitle(count: int, word: str) -> Callable[[NotesShop], None]:
    def edit(shop: NotesShop) -> None:
        rows = shop.read("items")
        for row in rows[40 : 40 + count]:
            row["title"] = f"{word} {row['title']}"
        shop.write("items", rows)

    return edit


def _add(shop: NotesShop) -> None:
    row = {"item_id": "new1", "title": "The Sea Book, New", "kind": "sea",
           "description": "A story of sea, out this week."}  # fmt: skip
    shop.write("items", [*shop.read("items"), row])


def _remove(shop: NotesShop) -> None:
    shop.write("items", [r for r in shop.read("items") if r["item_id"] != "b150"])


def _column(shop: NotesShop) -> None:
    shop.add_column("pages", [str(100 + i) for i in range(len(shop.read("items")))])


def _append(shop: NotesShop) -> None:
    users = [f"u{u:02}" for u in (1, 2)]  # 5 % of 40
    shop.append([[user, "b05", 4, 1_700_000_000 + i] for i, user in enumerate(users)])


def _plugin(before: str, after: str) -> Callable[[NotesShop], None]:
    return lambda shop: shop.edit("plugin/shop_plugin.py", before, after)


def _settings(before: str, after: str) -> Callable[[NotesShop], None]:
    return lambda shop: shop.edit("llmers.toml", before, after)


def _bad(count: int) -> Callable[[NotesShop], None]:
    def edit(shop: NotesShop) -> None:
        rows = shop.read("items")
        shop.write("items", [*rows, *rows[:count]])

    return edit


def _mend(shop: NotesShop) -> None:
    rows = {r["item_id"]: r for r in shop.read("items")}
    shop.write("items", list(rows.values()))


def _same(shop: NotesShop) -> None:
    path = shop.folder / "items.csv"
    path.write_bytes(path.read_bytes())


_REVISION = "revision: ClassVar[int] = {}\n    produces"
_PARSER = (
    "return super().parse(raw)",
    'return Parsed({"note": json.loads(raw)["note"].replace("those", "people")})',
)
_AXES = 'axes of the notes."""\n\n    revision: ClassVar[int] = {}'


def _parser(shop: NotesShop) -> None:
    _plugin(*_PARSER)(shop)
    _plugin(_REVISION.format(2), _REVISION.format(3))(shop)


def _prompt(shop: NotesShop) -> None:
    _plugin("Write a note", "Write one short note")(shop)
    _plugin(_REVISION.format(1), _REVISION.format(2))(shop)


def _transformer(shop: NotesShop) -> None:
    shop.train_encoder(0)
    _settings("tfidf?dim=24&version=2", str(shop.encoder))(shop)


OF_DATA = (
    Case("one item's title edited", _retitle(1, "My"), 1,
         (TABLE, NOTE, VECTORS, METHOD, CHAMPION), (BASE, "recommenders/itemknn")),
    Case("one item added, nobody has met it", _add, 1, (TABLE, NOTE, METHOD, CHAMPION), trained=0),
    Case("one item removed, nobody has met it", _remove, 0, (TABLE, NOTE, METHOD), trained=0),
    Case("a column added", _column, 0, (TABLE,), (METHOD, BASE), trained=0),
    Case("1 % of the items changed", _retitle(2, "Your"), 2, (NOTE, METHOD), (BASE,)),
    Case("interactions appended for 5 % of the users", _append, 0, (METHOD, BASE), (NOTE, VECTORS)),
    Case("one bad row", _bad(1), 0, (TABLE,), (NOTE, METHOD), trained=0),
    Case("bad rows above the limit", _bad(3), 0, (TABLE,), (NOTE, METHOD, CHAMPION),
         held="catalog/items: quarantine_small", trained=0),
    Case("the bad rows mended", _mend, 0, (TABLE,), (NOTE, METHOD), trained=0),
    Case("an identical file written again", _same, 0, runs=False, trained=0),
)  # fmt: skip
OF_CODE = (
    Case("a prompt revised", _prompt, CATALOG, (NOTE,), (TABLE, BASE)),
    Case("a parser mended", _parser, 0, (NOTE, VECTORS, METHOD), (TABLE, BASE)),
    Case("a model revision", _settings('"shop/model"', '"shop/model"\nrevision = "2"'), CATALOG,
         (NOTE,), (TABLE, BASE)),
    Case("an encoder's setting", _settings("tfidf?dim=24", "tfidf?dim=24&version=2"), 0,
         (VECTORS,), (NOTE, BASE)),
    Case("a component revision", _plugin(_AXES.format(1), _AXES.format(2)), 0, (AXES,),
         (NOTE, VECTORS, BASE)),
    Case("a recipe's hyper-parameter", _settings(
        'recipe = "sasrec"\nbackbone_settings = { dim = 8, inner = 16',
        'recipe = "sasrec"\nbackbone_settings = { dim = 8, inner = 24'), 0,
         (BASE.replace("inner16", "inner24"),), (NOTE, METHOD)),
    Case("another encoder: a transformer in a folder", _transformer, 0, (VECTORS, METHOD), (NOTE,)),
    Case("an encoder revision: other weights in its folder", lambda shop: shop.train_encoder(1), 0,
         (VECTORS, METHOD), (NOTE, TABLE)),
)  # fmt: skip
