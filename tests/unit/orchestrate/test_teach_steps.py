"""What a plan with teachers refuses, and how it names and controls them."""

from __future__ import annotations

import dataclasses

import pytest

from llmers_pipelines.api import (
    DIN,
    Distill,
    GRU4Rec,
    NeighbourDistillation,
    RankingDistillation,
    SASRec,
    Teach,
    Train,
    TrainedRanking,
    rankings,
    splits,
)
from llmers_pipelines.config import Method, Settings
from llmers_pipelines.orchestrate.build import base_of, build_plan
from llmers_pipelines.orchestrate.checks import checks_of
from llmers_pipelines.plan import Pin, PlanError, component_slug
from llmers_pipelines.recipe import discover, recipe

LOG = splits("sequential")
CONTROLS = ("permuted", "gaussian", "shuffled", "template")


def plan_of(*methods, recipes=None, **settings):
    chosen = Settings(encoder="tfidf", methods=methods, controls=CONTROLS, **settings)
    return build_plan(chosen, recipes)


def declared(build):
    return recipe(name="Probe", task="sequential", family="distillation")(build)


def refused(build, match):
    with pytest.raises(PlanError, match=match):
        plan_of(Method("probe"), recipes={**discover(), "probe": declared(build)})


def test_a_student_and_its_teacher_are_nodes_of_their_own_kind():
    plan = plan_of(Method("sasrec"), Method("dllm2rec"))
    student = plan.node("student_weights/dllm2rec__sasrec")
    (teacher,) = (n for n in student.inputs if isinstance(n, Teach))
    assert teacher.name == "teacher_states/trained_ranking__sasrec__dim256__inner1024"
    assert [s.name for s in teacher.sources] == ["recommenders/sasrec__dim256__inner1024"]
    assert base_of(student) == plan.node("recommenders/sasrec")
    assert {c.name for c in checks_of(teacher) if c.blocking} == {"no_leakage", "row_identity"}
    assert checks_of(student) == checks_of(base_of(student))
    same = Train(student.backbone, student.log, student.init, student.fuse, student.aux)
    assert same != student and same.digest != student.digest


def test_a_teacher_that_is_a_method_as_well_is_one_asset():
    big = Method("sasrec", backbone_settings={"dim": 256, "inner": 1024})
    for order in ((big, Method("dllm2rec")), (Method("dllm2rec"), big)):
        plan = plan_of(*order)
        found = [n.name for n in plan.nodes if "dim256" in n.name and n.prefix == "recommenders"]
        assert found == ["recommenders/sasrec__dim256__inner1024"]
    text = Method("dllm2rec", settings={"teacher": "text"})
    twin = Method("llm2x", backbone_settings={"dim": 256, "inner": 1024})
    plan = plan_of(text, twin)
    names = [n.name for n in plan.nodes if n.prefix == "recommenders"]
    assert "recommenders/llm2x__sasrec__dim256__inner1024" in names
    student = next(n for n in plan.nodes if n.prefix == "student_weights")
    (teacher,) = (n for n in student.inputs if isinstance(n, Teach))
    assert teacher.sources[0].name in names


def test_only_methods_with_rankings_have_the_shuffled_control():
    plan = plan_of(Method("llm2x"), Method("dllm2rec"))
    controls = {m.recipe.slug: m.evaluate.controls for m in plan.methods}
    assert controls["llm2x"] == ("permuted", "gaussian")
    assert controls["dllm2rec"] == ("permuted", "gaussian", "shuffled")
    assert controls["knnblend"] == ()


def test_the_engine_enters_the_identity_of_a_language_models_rankings_alone():
    def digests(**settings):
        methods = [Method("dllm2rec", settings={"teacher": t}) for t in ("llm", "larger")]
        plan = plan_of(*methods, **settings)
        return [n.digest for n in plan.nodes if isinstance(n, Teach)]

    one, two = digests(engine="hf", model="a"), digests(engine="hf", model="b")
    assert [a == b for a, b in zip(one, two, strict=True)] == [False, True]
    asked = rankings("llm", LOG)
    assert isinstance(asked.sources[1], Pin)


def test_a_distill_without_a_teacher_is_refused():
    def probe(backbone=SASRec()):
        return Distill(backbone, LOG)

    refused(probe, "a Distill needs a Teach among its parts")


def test_another_log_is_refused():
    def probe(backbone=SASRec()):
        other = splits("sequential_early")
        taught = Teach(TrainedRanking(), LOG, (Train(SASRec(), other),))
        return Distill(backbone, LOG, aux=(RankingDistillation(taught),))

    refused(probe, "student and teacher need one log, catalog/splits__sequential; found")


def test_a_teacher_needs_its_seams_as_well():
    def probe(backbone=SASRec()):
        part = NeighbourDistillation(similar=splits("sequential"))
        taught = Teach(TrainedRanking(), LOG, (Train(DIN(), LOG, aux=(part,)),))
        return Distill(backbone, LOG, aux=(RankingDistillation(taught),))

    refused(probe, "its teacher: NeighbourDistillation needs the seam")


def test_unknown_teachers_and_settings_are_named():
    with pytest.raises(PlanError, match="teacher is 'gpt'; use 'larger'"):
        rankings("gpt", LOG)
    with pytest.raises(PlanError, match="recipe 'dllm2rec' has no setting 'student'"):
        discover()["dllm2rec"](student=1)
    slim = dataclasses.replace(TrainedRanking(), newest=2, k=5)
    assert component_slug(slim) == "trained_ranking__k5__newest2"
    assert component_slug(GRU4Rec(hidden=256)) == "gru4rec__hidden256"
