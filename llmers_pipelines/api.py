"""What a recipe imports: verbs, tables and the shared components. Imports no torch."""

from __future__ import annotations

from .data.text import AnswerText, HistoryText, ItemText
from .derive.candidates import TopCandidates
from .derive.columns import ColumnSelect
from .derive.neighbours import NearestNeighbours
from .derive.pca import PCA
from .derive.random_projection import RandomProjection
from .enhance.augmented_pairs import AugmentedPairs
from .enhance.dual_view import DualView
from .enhance.from_vectors import FromVectors
from .enhance.hybrid_experts import HybridExperts
from .enhance.mean_of_history import MeanOfHistory
from .enhance.neighbour_distillation import NeighbourDistillation
from .enhance.side_features import SideFeatures
from .models.bprmf import BPRMF
from .models.deepfm import DeepFM
from .models.din import DIN
from .models.ease import EASE
from .models.fit import Fit
from .models.itemknn import ItemKNN
from .models.knnblend import KNNBlend
from .models.lightgcn import LightGCN
from .models.popularity import Popularity
from .models.sasrec import SASRec
from .models.textknn import TextKNN
from .plan import Derive, Embed, Generate, Pin, Table, Train, snake
from .prompts.item_knowledge import ItemKnowledge
from .prompts.item_summary import ItemSummary
from .prompts.liked_disliked import LikedDisliked
from .prompts.user_preference import UserPreference
from .recipe import recipe

items = Table("items")
users = Table("users", of=(Table("interactions", of=(items,)),))
interactions = Table("interactions", of=(items,))


def splits(task: str) -> Table:
    """Return the training log of a task, with its id maps and its train/valid/test split."""
    return Table("splits", task=task, of=(items, interactions, users))


def pinned(train: Train) -> Pin:
    """Return the pin of a bare backbone, named by its kind and its splits, not by its settings.

    Tuning it therefore leaves what hangs on the pin as it is, until the pin is moved on purpose.
    """
    kind = snake(type(train.backbone).__name__)
    return Pin(train, role=f"{kind}__{train.log.task}")


__all__ = [
    "BPRMF", "DIN", "EASE", "PCA", "AnswerText", "AugmentedPairs", "ColumnSelect", "DeepFM",
    "Derive", "DualView", "Embed", "Fit", "FromVectors", "Generate", "HistoryText",
    "HybridExperts", "ItemKNN", "ItemKnowledge", "ItemSummary", "ItemText", "KNNBlend", "LightGCN",
    "LikedDisliked", "MeanOfHistory", "NearestNeighbours", "NeighbourDistillation", "Pin",
    "Popularity", "RandomProjection", "SASRec", "SideFeatures", "Table", "TextKNN",
    "TopCandidates", "Train", "UserPreference", "interactions", "items", "pinned", "recipe",
    "splits", "users",
]  # fmt: skip
