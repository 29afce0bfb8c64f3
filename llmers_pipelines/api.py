"""What a recipe imports: verbs, tables and the shared components. Imports no torch.

A component is imported when it is first asked for: a recipe pays for what it names, not for all.
"""

# ruff: noqa: F401

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .plan import (
    Derive,
    Distill,
    Embed,
    Generate,
    Pin,
    PlanError,
    Table,
    Teach,
    Train,
    Tune,
    snake,
)
from .recipe import recipe

if TYPE_CHECKING:
    from .data.text import AnswerText, AttributeText, HistoryText, ItemText
    from .derive.answer_pairs import AnswerPairs
    from .derive.aspect_edges import ItemAspectEdges, ReviewAspectEdges
    from .derive.attribute_views import AttributeViews
    from .derive.candidates import TopCandidates
    from .derive.cleaned_history import CleanedHistory
    from .derive.click_sequences import ClickSequences
    from .derive.columns import ColumnSelect
    from .derive.confident_errors import ConfidentErrors
    from .derive.corruptions import Corruptions
    from .derive.deep_states import DeepStates
    from .derive.fenced_rows import FencedRows
    from .derive.filtered_users import FilteredUsers
    from .derive.graph_rounds import MatchedTexts, Neighbourhood, RawTexts
    from .derive.hard_candidates import HardCandidates
    from .derive.hard_samples import HardSamples
    from .derive.history_examples import HistoryExamples
    from .derive.history_windows import HistoryWindows
    from .derive.item_facts import ItemFacts
    from .derive.item_texts import ItemTexts
    from .derive.item_vectors import ItemVectors
    from .derive.neighbours import NearestNeighbours
    from .derive.noisy_positions import NoisyPositions
    from .derive.pca import PCA
    from .derive.pooling import HistoryPooling
    from .derive.preference_examples import PreferenceExamples
    from .derive.profile_versions import PairTexts
    from .derive.random_projection import RandomProjection
    from .derive.reasoning import KeptChains, NewSteps, ReasoningRows, UserChains, VerifiedSteps
    from .derive.reasoning_graphs import GraphTexts, ReasoningGraphs
    from .derive.reviews import AspectVocabulary, ReviewQuestions, ReviewSamples, TrainingReviews
    from .derive.sampled_users import SampledUsers
    from .derive.scenario_facts import ScenarioFacts
    from .derive.sequence_edits import SequenceEdits
    from .derive.simulated_edges import SimulatedEdges
    from .derive.user_vectors import UserVectors
    from .enhance.added_rows import AddedRows
    from .enhance.aspect_views import AspectViews
    from .enhance.augmented_pairs import AugmentedPairs
    from .enhance.collaborative_alignment import CollaborativeAlignment
    from .enhance.dual_view import DualView
    from .enhance.edited_history import EditedHistory
    from .enhance.from_trunk import FromTrunk
    from .enhance.from_vectors import FromVectors
    from .enhance.frozen_items import FrozenItems
    from .enhance.hierarchy_tree import HierarchyTree
    from .enhance.hybrid_experts import HybridExperts
    from .enhance.hyperbolic_alignment import HyperbolicAlignment
    from .enhance.layer_distillation import DeepSupervision, LayerDistillation
    from .enhance.layer_texts import LayerTexts
    from .enhance.mean_of_history import MeanOfHistory
    from .enhance.meta_layers import MetaLayers
    from .enhance.neighbour_distillation import NeighbourDistillation
    from .enhance.projected_items import ProjectedItems
    from .enhance.ranking_distillation import RankingDistillation
    from .enhance.rationale_fusion import RationaleFusion
    from .enhance.reasoning_fusion import ReasoningFusion
    from .enhance.sample_mask import SampleMask
    from .enhance.semantic_graph import SemanticGraph
    from .enhance.side_features import SideFeatures
    from .enhance.spectral_fusion import SpectralFusion
    from .enhance.text_offset import TextOffset
    from .enhance.training_statistics import TrainingStatistics
    from .models.als import ALS
    from .models.autoint import AutoInt
    from .models.bert4rec import BERT4Rec
    from .models.biased_mf import BiasedMF
    from .models.bprmf import BPRMF
    from .models.caser import Caser
    from .models.cfkg import CFKG
    from .models.cke import CKE
    from .models.comirec import ComiRec
    from .models.dcnv2 import DCNv2
    from .models.deepfm import DeepFM
    from .models.dien import DIEN
    from .models.din import DIN
    from .models.dlrm import DLRM
    from .models.ease import EASE
    from .models.fibinet import FiBiNET
    from .models.fit import Fit
    from .models.gru4rec import GRU4Rec
    from .models.hgcf import HGCF
    from .models.hstu import HSTU
    from .models.itemknn import ItemKNN
    from .models.knnblend import KNNBlend
    from .models.lightgcn import LightGCN
    from .models.mmoe import MMoE
    from .models.naml import NAML
    from .models.nrms import NRMS
    from .models.ple import PLE
    from .models.popularity import Popularity
    from .models.sasrec import SASRec
    from .models.sgl import SGL
    from .models.srgnn import SRGNN
    from .models.star import STAR
    from .models.textknn import TextKNN
    from .models.two_tower import TwoTower
    from .models.xdeepfm import XDeepFM
    from .prompts.aspects import AspectWords, ItemAspects, ReviewAspects
    from .prompts.item_comprehension import ItemComprehension
    from .prompts.item_knowledge import ItemKnowledge
    from .prompts.item_summary import ItemSummary
    from .prompts.liked_disliked import LikedDisliked
    from .prompts.noise import NoiseList, Replacement
    from .prompts.pictured_item_summary import PicturedItemSummary
    from .prompts.preference_score import PreferenceScore
    from .prompts.rationale import UserRationale
    from .prompts.reasoning import ChainReasoning, ExtendChains, FillStep, ScoreChains
    from .prompts.revised_preference import RevisedPreference
    from .prompts.rewrite import RewriteItem, RewriteUser
    from .prompts.scenario_preference import ScenarioPreference
    from .prompts.scenario_reasoning import ScenarioReasoning
    from .prompts.user_preference import UserPreference
    from .prompts.would_like import WouldLike
    from .rankings import rankings
    from .teach.language_model_ranking import LanguageModelRanking
    from .teach.language_model_states import LanguageModelStates
    from .teach.noise_scores import NoiseScores
    from .teach.pair_judge import PairJudge
    from .teach.recorded_ranking import RecordedRanking
    from .teach.trained_ranking import TrainedRanking
    from .tune.contrast import Contrast
    from .tune.deep_clicks import DeepClicks
    from .tune.field_alignment import FieldAlignment
    from .tune.item_prompt import ItemPrompt
    from .tune.next_item_contrast import NextItemContrast
    from .tune.sft import Sft
    from .tune.tuner import Lora

items = Table("items")
users = Table("users", of=(Table("interactions", of=(items,)),))
interactions = Table("interactions", of=(items,))
# A knowledge graph beside the log and the entity of each item, where the data set has them.
knowledge = Table("kg", of=(items,))
knowledge_links = Table("kg_link", of=(items,))
reviews = Table("reviews", of=(items,))  # user_id, item_id, text


def splits(task: str) -> Table:
    """Return the training log of a task, with its id maps and its train/valid/test split."""
    return Table("splits", task=task, of=(items, interactions, users))


def pinned(train: Train) -> Pin:
    """Return the pin of a bare backbone, named by its kind and its splits, not by its settings.

    Tuning it therefore leaves what hangs on the pin as it is, until the pin is moved on purpose.
    """
    kind = snake(type(train.backbone).__name__)
    return Pin(train, role=f"{kind}__{train.log.task}")


def _homes() -> dict[str, str]:
    """Return the module of each component, as this file states it for type checkers."""
    found = ast.parse(Path(__file__).read_text(encoding="utf-8")).body
    block = next(n for n in found if isinstance(n, ast.If))
    return {a.name: f".{n.module}" for n in block.body if isinstance(n, ast.ImportFrom)
            for a in n.names}  # fmt: skip


_HOMES = _homes()
__all__ = sorted(  # pyright: ignore[reportUnsupportedDunderAll]
    {*_HOMES, "Derive", "Distill", "Embed", "Generate", "Pin", "PlanError", "Table", "Teach",
     "Train", "Tune", "interactions", "items", "knowledge", "knowledge_links", "pinned", "recipe",
     "reviews", "splits", "users"}
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"llmers_pipelines.api has no {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name], __package__), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
