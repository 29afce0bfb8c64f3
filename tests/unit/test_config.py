"""Settings: precedence, clear errors, paths that do not depend on the current folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmers_pipelines.config import ConfigError, load_settings, secret


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("LLMERS_HOME", "LLMERS_CONFIG", "LLMERS_DATASET", "LLMERS_SEEDS",
                 "LLMERS_DATA_ROOT", "LLMERS_ENGINE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)

    def write(text: str) -> Path:
        path = tmp_path / "llmers.toml"
        path.write_text(text)
        return path

    return write


def test_precedence_flags_environment_file_defaults(toml, monkeypatch) -> None:
    path = toml('[llmers]\ndataset = "file"\n[evaluation]\nseeds = 2\n')
    assert load_settings(config=path).dataset == "file"
    assert load_settings(config=path).seeds == 2
    monkeypatch.setenv("LLMERS_DATASET", "environment")
    assert load_settings(config=path).dataset == "environment"
    assert load_settings(config=path, dataset="flag").dataset == "flag"
    assert load_settings(config=path, dataset=None).dataset == "environment"
    assert load_settings(config=path).threads == 1


def test_an_unknown_setting_names_the_file_and_the_near_one(toml) -> None:
    path = toml("[evaluation]\nseed = 2\n")
    with pytest.raises(ConfigError, match=r"llmers\.toml.*evaluation\.seed.*evaluation\.seeds"):
        load_settings(config=path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[llm]\nengine = "magic"\n', "expected one of"),
        ('[llm]\nengine = "hf"\n', "needs llm.model"),
        ('[llm]\nengine = "openai"\n', "needs llm.model"),
        ("[budget]\nmoney_per_day = -1\n", "budget.money_per_day = -1.0; 0 means no bound"),
        ('[evaluation]\nseeds = "many"\n', "not a valid int"),
        ("[evaluation]\nseeds = 0\n", "at least 1"),
        ('[evaluation]\ncontrols = ["permutd"]\n', "permuted"),
        ('[ui]\nlineage_url = "javascript:alert(1)"\n', "expected an address such as"),
        ('[ui]\nlineage_url = "http://user:secret@host"\n', "expected an address such as"),
        ("not toml at all", "not valid TOML"),
        ('[[methods]]\nbackbone = "sasrec"\n', "needs recipe"),
        ('[[methods]]\nrecipe = "kar"\nbackbon = "din"\n', "backbone"),
    ],
)
def test_wrong_values_say_the_mend(toml, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_settings(config=toml(text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(config=tmp_path / "nowhere.toml")


def test_relative_paths_of_the_file_start_at_the_file(toml) -> None:
    path = toml('[llmers]\nhome = "state"\ndata_root = "sets"\n')
    settings = load_settings(config=path)
    assert settings.home == path.parent / "state"
    assert settings.data_root == path.parent / "sets"


def test_every_process_resolves_the_same_state(toml, tmp_path: Path, monkeypatch) -> None:
    path = toml("")
    first = load_settings(config=path, home=tmp_path / "state")
    for name, value in first.child_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    second = load_settings()
    assert (second.home, second.mlflow_uri) == (first.home, first.mlflow_uri)
    assert second.mlflow_uri.startswith("sqlite:////")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[train]\ndevice = "gpu0"\n', "train.device = 'gpu0'; expected auto, cpu, cuda"),
        ('[llmers]\noffline = "maybe"\n', "offline = 'maybe' is not a valid bool"),
    ],
)
def test_a_value_outside_of_its_range_is_refused_when_it_is_read(toml, text, fault) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_settings(config=toml(text))


def test_flags_of_the_environment_may_be_written_as_people_do(toml, monkeypatch) -> None:
    path = toml("")
    monkeypatch.setenv("LLMERS_OFFLINE", "off")
    assert not load_settings(config=path).offline
    assert load_settings(config=toml('[train]\ndevice = "cuda:1"\n')).device == "cuda:1"
def test_a_key_in_the_file_is_refused_without_showing_it(toml, monkeypatch) -> None:
    path = toml('[llm]\napi_key = "sk-in-the-wrong-place"\n')
    with pytest.raises(ConfigError, match=r"llm\.api_key.*llm\.api_key_env") as error:
        load_settings(config=path)
    assert "sk-in-the-wrong-place" not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", " sk-secret\n")
    settings = load_settings(config=toml('[llm]\nengine = "openai"\nmodel = "m"\n'))
    assert secret("OPENAI_API_KEY") == "sk-secret" and "sk-secret" not in repr(settings)
    assert settings.engine_identity == "openai:m@", "the endpoint is no part of it"


def test_checkpoints_and_compile_are_settings_of_training(tmp_path: Path) -> None:
    toml = tmp_path / "llmers.toml"
    toml.write_text("[train]\ncheckpoint_seconds = 5\ncompile = true\n")
    settings = load_settings(home=tmp_path, config=toml)
    assert (settings.checkpoint_seconds, settings.compile) == (5.0, True)
    toml.write_text("[train]\ncheckpoint_seconds = -1\n")
    with pytest.raises(ConfigError, match=r"train.checkpoint_seconds = -1.0; at least 0"):
        load_settings(home=tmp_path, config=toml)
