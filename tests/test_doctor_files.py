from pathlib import Path

from msgspec.structs import replace

from d7agent.cli.doctor import configuration, profiles
from d7agent.core.paths import system_paths
from tests.support import cli
from tests.support.doctor import bad, config, d7agent, folder, look, nearby, only
from tests.support.fakeagent import profile

__all__ = ["config", "d7agent", "folder", "nearby"]  # fixtures


def test_each_fault_of_the_configuration(config: Path) -> None:
    """File, line and key, as the agent would tell; what the agent still complains of is told, too."""
    (config / "config.toml").write_text("defualt_profile = 'x'\n")
    (config / "profiles").mkdir()
    (config / "profiles" / "a.toml").write_text('store = "cupboard"\n')
    texts = [one.text for one in bad(configuration.check, look())]
    assert ["config.toml:1" in texts[0], "a.toml:1" in texts[1]] == [True, True]
    scene = replace(look(), status={"agent": {"config_problems": ["old.toml: bad"]}}, problems=())
    assert "older configuration" in bad(configuration.check, scene)[0].text


def test_files_that_others_can_change(config: Path) -> None:
    """Whoever can write a profile can have the secret sent to himself."""
    (config / "config.toml").write_text("")
    assert bad(configuration.check, look()) == []
    for path in (config / "config.toml", config):
        mode = path.stat().st_mode
        path.chmod(mode | 0o022)
        found = bad(configuration.check, look())[0]
        assert (found.id, found.level, f"chmod go-w {path}" in found.remedy) == ("file-mode", "error", True)
        assert f"others can write to the {'folder' if path == config else 'file'} {path}" in found.text
        path.chmod(mode)


def test_state_that_others_can_read(folder: Path, config: Path) -> None:
    """Remembered tokens are for the agent alone."""
    state = folder / ".local" / "state" / "d7agent"
    state.mkdir(parents=True, mode=0o700)
    (state / ".default.token").write_text("")
    (state / ".default.token").chmod(0o644)
    assert only(configuration.check, look()).id == "file-mode"


def test_access_on_a_users_own_agent(config: Path) -> None:
    """It has no effect there, and says so; on the host's agent its names are looked up."""
    (config / "config.toml").write_text('[access]\nusers = ["root", "no-such-user"]\nunits = ["x.service"]\n')
    scene = look()
    assert "no effect" in only(configuration.check, scene).text
    host = replace(scene, system=True, paths=system_paths({}))
    assert "no-such-user" in next(one.text for one in bad(configuration.check, host) if one.id == "access")


def test_credentials_that_others_can_read(folder: Path, config: Path) -> None:
    """The agent refuses such files, and an empty folder is no credential."""
    credential = folder / "credential"
    (config / "profiles").mkdir()
    (config / "profiles" / "a.toml").write_text(f'store = "directory:{credential}"\n')
    assert "holds no credential" in only(configuration.check, look()).text
    credential.mkdir(mode=0o700)
    assert "holds no credential" in only(configuration.check, look()).text
    (credential / "access_token").write_text("very-secret-token")
    (credential / "access_token").chmod(0o644)
    found = only(configuration.check, look())
    assert (found.remedy, "very-secret" in str(found)) == (f"chmod 600 {credential}/access_token", False)
    (credential / "access_token").chmod(0o600)
    credential.chmod(0o777)
    found = only(configuration.check, look())
    assert f"others can write to the folder {credential}" in found.text
    assert found.remedy == f"chmod go-w {credential} (or +t)"


def test_a_profile_in_trouble_has_its_next_step(folder: Path, d7agent: cli.Inside) -> None:
    """The judgement of `check` with the remedy of `status`."""
    sick = [profile(profile="work", state="no_credential"), profile(profile="b", sinks=[{"path": "/x", "ok": False}])]
    scene = replace(look(), status={"profiles": [profile(), *sick]})
    found = bad(profiles.check, scene)
    assert [one.level for one in found] == ["error", "warn"]
    assert "d7agent login work" in found[0].remedy
