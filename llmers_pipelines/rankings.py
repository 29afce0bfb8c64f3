"""The rankings of a named teacher, as a recipe asks for them."""

from __future__ import annotations

from .derive.pca import PCA
from .enhance.from_vectors import FromVectors
from .models.itemknn import ItemKNN
from .models.sasrec import SASRec
from .plan import Derive, Embed, Pin, PlanError, Table, Teach, Train
from .teach.language_model_ranking import LanguageModelRanking
from .teach.recorded_ranking import RecordedRanking
from .teach.trained_ranking import TrainedRanking


def rankings(
    teacher: str, log: Table, *, k: int = 10, dim: int = 256, vectors: Embed | None = None
) -> Teach:
    """Return a teacher's ``k`` items after each training position of ``log``.

    ``teacher``: "larger", a SASRec of width ``dim`` on the same log; "text", the same, its table
    started from item ``vectors``; "llm", a language model that ranks candidates of a pinned
    ItemKNN; "file", the rankings that the data set declares. The first two ask no language model.
    """
    model = SASRec(dim=dim, inner=4 * dim)
    if teacher == "larger":
        return Teach(TrainedRanking(k=k), log, (Train(model, log),))
    if teacher == "text":
        start = FromVectors("item", Derive(PCA(dim=dim), vectors))
        return Teach(TrainedRanking(k=k), log, (Train(model, log, init=(start,)),))
    if teacher == "llm":
        known = Pin(Train(ItemKNN(), log))
        return Teach(LanguageModelRanking(k=k), log, (Table("items"), known))
    if teacher == "file":
        return Teach(RecordedRanking(k=k), log)
    raise PlanError(f"teacher is {teacher!r}; use 'larger', 'text', 'llm' or 'file'")
