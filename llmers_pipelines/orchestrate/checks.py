"""The asset checks of each verb: names, whether they block, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

from ..plan import Derive, Generate, Node, Pin, Table
from ..safety import Safety, SafetyCheck


@dataclass(frozen=True)
class CheckKind:
    name: str
    blocking: bool
    description: str


_TABLE = (
    CheckKind("rows_valid", True, "Not empty; ids are unique, not null and known."),
    CheckKind("quarantine_small", True, "At most 1 % of the source rows are in quarantine, or the "
              "share that settings or description allow."),
)
_SPLITS = (
    CheckKind(
        "splits_disjoint", True, "Each row is in one split; each split has rows; no unknown id."
    ),
    CheckKind(
        "no_future",
        True,
        "No training row of a user is later than that user's test row, "
        "where the split follows time (leave_one_out, time).",
    ),
)
_GENERATE = (
    CheckKind(
        "no_leakage",
        True,
        "Prompts saw rows of the training split alone, and recorded "
        "answers are allowed on this split.",
    ),
    CheckKind("coverage", False, "At least half of the entities have an accepted answer."),
    CheckKind("quarantine_small", False, "At most 5 % of the answers were refused."),
)
# A model may know from elsewhere what a user met later; a title in the text is a sign of it.
_PROFILES = CheckKind(
    "no_held_out_title", False, "No text about a user names an item that the user meets only in "
    "the test split.",
)  # fmt: skip
_EMBED = (
    CheckKind("row_identity", True, "The vector stored under an id is that id's (invariant 1)."),
    CheckKind("padding", True, "Row 0 is zero and never an entity (invariant 2)."),
    CheckKind("coverage", True, "One row per entity; fallbacks are marked (invariant 3)."),
    CheckKind("determinism", True, "Alone or in a batch, a text has one vector (invariant 4)."),
    CheckKind("incrementality", True, "Only texts not yet stored were encoded (invariant 5)."),
    CheckKind("geometry", False, "Anisotropy, effective rank, duplicates (invariant 7)."),
)
_DERIVE = (
    CheckKind("row_identity", True, "Rows are keyed by id and cover the source (invariants 1, 3)."),
    CheckKind("padding", True, "Row 0 is zero and never an entity (invariant 2)."),
    CheckKind("reducer_hygiene", True, "Fitted on rows with text alone; the fit is kept until an "
              "explicit version (invariants 5, 6)."),
)  # fmt: skip
_NEIGHBOURS = (CheckKind("row_identity", True, "Keyed by id; nobody is their own neighbour."),)
_ENTITIES = (CheckKind("row_identity", True, "Known ids, each once; no row without one."),)
_POSITIONS = (
    CheckKind("row_identity", True, "Each training position at most once, with the item that "
              "stands there."),
)  # fmt: skip
_PAIRS = (CheckKind("row_identity", True, "Known users and items, each pair once."),)
_ADDED = (
    CheckKind("row_identity", True, "Known users and items, each pair once; no training row."),
)
_CANDIDATES = (
    CheckKind("row_identity", True, "Each pair of known ids once; no training row is offered."),
    CheckKind("no_leakage", True, "The model that offers was trained on no row held out now."),
)
_EDGES = (
    CheckKind("row_identity", True, "Known users and items; each labelled edge once."),
    CheckKind("no_leakage", True, "Every edge is a training row."),
)
_GRAPHS = (
    CheckKind("row_identity", True, "One graph of a kind per user and round; edges between nodes."),
    CheckKind("no_leakage", True, "The items of a user's chains are training rows before the cut."),
)
_TRAIN = (
    CheckKind("weights_finite", True, "All weights and validation scores are finite."),
    CheckKind(
        "frozen_unchanged",
        True,
        "Frozen tables have the same checksum after training (invariant 8).",
    ),
    CheckKind("padding", True, "Row 0 of trained embedding tables is still zero (invariant 2)."),
)
_TEACH = (
    CheckKind(
        "no_leakage", True, "The teacher saw rows of the training split alone: its own log, what "
        "it was shown, and what a file declares.",
    ),
    CheckKind("row_identity", True, "Known ids; ranks 1 to n at each position; no item twice."),
    CheckKind("coverage", False, "At least half of the training positions have a ranking."),
    CheckKind("quarantine_small", False, "At most 5 % of a file's rows were refused."),
)  # fmt: skip
_TUNE = (
    CheckKind("no_leakage", True, "What the tuner was shown of users is training rows alone."),
    CheckKind("weights_finite", True, "All weights of the adapter are finite."),
    CheckKind("loss_fell", False, "The loss fell: from epoch to epoch, or within one."),
)
_EXAMPLES = (
    CheckKind("row_identity", True, "Each example has an id of its own."),
    CheckKind("no_leakage", True, "What an example shows of a user is training rows alone."),
)
_EVALUATE = (
    CheckKind("metrics_finite", True, "No metric is NaN; groups recombine to the overall mean."),
    CheckKind("permutation_control", False, "Permuted and random rows, and shuffled rankings, are "
              "not shown to beat the base, and help less than the real ones (invariant 9)."),
    CheckKind("matched_budget", True, "The trainings of base and method had the same settings, "
              "log and seeds, and kept to the bound on epochs (invariant 10)."),
)  # fmt: skip
_REGISTER = (
    CheckKind(
        "no_llm_at_serving", True, "The bundle is tables and a conventional model (invariant 11)."
    ),
    CheckKind("loads", True, "The bundle loads and answers for a known and an unknown user."),
)
_CHAMPION = (CheckKind("alias_consistent", True, "The alias points at the version that won."),)


_SAFETY = {
    "protected_attributes": "say protected attributes of a person",
    "toxicity": "are toxic by the user's words or classifier",
    "pii": "hold personal data",
    "refusal": "decline to answer or talk like a chat",
    "boilerplate": "share their sentences with many rows or repeat themselves",
    "language": "are in another language than expected",
}


def safety_checks(node: Node, safety: Safety | None) -> tuple[SafetyCheck, ...]:
    """Return the configured checks of what ``node`` generates; the template control has none."""
    if safety is None or not isinstance(node, Generate) or node.llm == "template":
        return ()
    return safety.of(node.prefix)


def checks_of(node: Node, safety: Safety | None = None) -> tuple[CheckKind, ...]:
    """Return the checks of ``node`` by its verb, and those of generated texts."""
    return _by_verb(node) + tuple(
        CheckKind(f"safety_{check.name}", check.blocking,
                  f"At most {check.max_share:.1%} of the texts {_SAFETY[check.name]}; "
                  f"action: {check.action}.")
        for check in safety_checks(node, safety)
    )  # fmt: skip


def _by_verb(node: Node) -> tuple[CheckKind, ...]:
    if isinstance(node, Pin):
        return ()
    if isinstance(node, Table):
        return _SPLITS if node.table == "splits" else _TABLE
    if isinstance(node, Derive):
        tables = {"neighbours": _NEIGHBOURS, "candidates": _CANDIDATES, "examples": _EXAMPLES,
                  "entities": _ENTITIES, "positions": _POSITIONS, "edges": _EDGES,
                  "graphs": _GRAPHS, "pairs": _PAIRS, "samples": _PAIRS,
                  "interactions": _ADDED}  # fmt: skip
        return _DERIVE if node.how.output == "vectors" else tables[node.how.rows]
    if isinstance(node, Generate) and node.prefix == "user_profiles":
        return (*_GENERATE, _PROFILES)
    return {
        "generate": _GENERATE, "embed": _EMBED, "train": _TRAIN, "evaluate": _EVALUATE,
        "register": _REGISTER, "champion": _CHAMPION, "teach": _TEACH, "distill": _TRAIN,
        "tune": _TUNE,
    }[node.verb]  # fmt: skip


def blocking_names(node: Node, safety: Safety) -> set[str]:
    """Return the names of the checks that must pass before anything is made from ``node``."""
    return {kind.name for kind in checks_of(node, safety) if kind.blocking}
