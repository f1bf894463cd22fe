"""How long a command asks a store that does not answer."""

import pytest
from typer.testing import CliRunner

from pipeline import opening
from pipeline.cli import app

NO_ONE = ("--set", "store.endpoint=http://127.0.0.1:9", "--set", "store.attempts=1")
AT = ("--workdir", "s3://bucket/work")


@pytest.mark.parametrize(
    ("overrides", "brief", "asked_s"),
    [
        ([], False, 300),
        ([], True, opening.BRIEF_PATIENCE_S),
        (["store.patience_s=300"], True, 300),
        (["store.patience_s=60"], True, 60),
    ],
)
def test_reading_is_brief_unless_someone_said_how_long(overrides, brief, asked_s):
    settings, store = opening.open_new("nano", "memory://opening", overrides, brief=brief)
    assert store.options["patience_s"] == asked_s
    assert settings.store.patience_s == (60 if asked_s == 60 else 300)


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("report",),
        ("explain", "x"),
        ("sources",),
        ("run", "--plan"),
        ("submit", "--to", "slurm", "--dry-run"),
    ],
)
def test_the_commands_that_only_read_are_brief_and_name_the_address(command, monkeypatch):
    monkeypatch.setattr(opening, "BRIEF_PATIENCE_S", 0.0)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "no-one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no-one")
    done = CliRunner().invoke(app, [*command, *AT, *NO_ONE])
    assert done.exit_code == (0 if command[0] == "submit" else 3), done.output
    assert "store.endpoint (for S3 also AWS_ENDPOINT_URL)" in done.stderr
