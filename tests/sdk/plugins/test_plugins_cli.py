import json

import pytest
from typer.testing import CliRunner

from djepa.cli.plugins_commands import app
from djepa.errors import UnknownNameError


def run(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def healthy(site, offering):
    site.add("acme-tokens", {"acme": offering("patch", "codes", before="print('loading acme')")}, version="1.2")
    return site


@pytest.fixture
def broken(healthy, offering):
    healthy.add("broken", {"culprit": "import no_such_module"}, version="2.3")
    healthy.add("hollow", {"hollow": offering("empty", target="no_such_module:Thing")}, version="4.5")
    healthy.add("tomorrow", {"future": "DJEPA_CONTRACT = (9, 0)"}, version="6.7")
    return healthy


def test_list_has_a_line_per_plugin(broken):
    result = run("list")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [row[:4] for row in rows] == [["acme", "acme-tokens", "1.2", "ok"], ["culprit", "broken", "2.3", "failed"],
                                         ["hollow", "hollow", "4.5", "ok"], ["future", "tomorrow", "6.7", "incompatible"]]
    assert rows[0][4] == "tokenizer patch, tokenizer codes" and "no_such_module" in rows[1][4]
    assert float(rows[0][5]) > 0


def test_list_as_json_is_json_whatever_the_plugins_print(broken):
    result = run("list", "--json")
    acme, culprit, *_ = json.loads(result.stdout)
    assert acme["contributions"][0] == {"kind": "tokenizer", "name": "patch", "target": "targets:Thing",
                                        "summary": "about patch", "plugin": "acme", "distribution": "acme-tokens"}
    assert culprit["status"] == "failed" and "no_such_module" in culprit["traceback"]
    assert "loading acme" in result.stderr


@pytest.mark.parametrize("name", ["acme", "acme-tokens:acme", "acme-tokens", "Acme.Tokens"])
def test_info_tells_everything(broken, name):
    result = run("info", name)
    assert result.exit_code == 0
    assert all(part in result.stdout for part in ("acme-tokens 1.2", "ok", "tokenizer codes = targets:Thing", "about codes"))
    assert "culprit" not in result.stdout
    assert [record["name"] for record in json.loads(run("info", name, "--json").stdout)] == ["acme"]


def test_info_of_what_is_not_there_suggests(broken):
    result = run("info", "acmee")
    assert isinstance(result.exception, UnknownNameError) and "Did you mean 'acme'" in str(result.exception)


def test_the_doctor_finds_nothing_wrong_with_healthy_plugins(healthy):
    result = run("doctor")
    assert (result.exit_code, result.stdout) == (0, "1 plugins: 1 in use, 0 switched off; problems: 0.\n")
    assert json.loads(run("doctor", "--json").stdout) == {"healthy": True, "problems": [], "notes": []}


@pytest.mark.parametrize("strict", ["0", "1"])
def test_the_doctor_reports_every_problem_with_its_cure(broken, monkeypatch, strict):
    monkeypatch.setenv("DJEPA_PLUGINS_STRICT", strict)
    result = run("doctor")
    assert result.exit_code == 1
    assert all(part in result.stdout for part in (
        "plugin culprit of broken 2.3: ModuleNotFoundError", "plugin future of tomorrow 6.7: ", "contract 9.0",
        "plugin hollow of hollow 4.5: tokenizer 'empty' is 'no_such_module:Thing', which cannot be imported",
        "import no_such_module", "pip install -U broken", "pip uninstall hollow", "DJEPA_PLUGINS_OFF=broken:culprit",
        "pip install -U djepa tomorrow", "4 plugins: 2 in use, 0 switched off; problems: 3."))
    report = json.loads(run("doctor", "--json").stdout)
    assert not report["healthy"] and {one["plugin"] for one in report["problems"]} == {"culprit", "hollow", "future"}


def test_the_cure_of_the_doctor_cures(broken, monkeypatch):
    problems = json.loads(run("doctor", "--json").stdout)["problems"]
    names = [one["cure"].rpartition("DJEPA_PLUGINS_OFF=")[2] for one in problems]
    monkeypatch.setenv("DJEPA_PLUGINS_OFF", ",".join(names))
    result = run("doctor")
    assert (result.exit_code, result.stdout) == (0, "4 plugins: 1 in use, 3 switched off; problems: 0.\n")


def test_the_doctor_notes_a_name_of_ours_without_calling_it_a_problem(healthy, offering):
    healthy.add("djepa", {"ours": offering("patch")}, version="0.1.0")
    result = run("doctor")
    assert result.exit_code == 0 and "note: acme-tokens:acme: tokenizer 'patch' is reserved" in result.stdout


def test_the_doctor_sends_nobody_to_pip_for_a_loose_file(site, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("import no_such_module")
    monkeypatch.setenv("DJEPA_PLUGIN_PATH", str(tmp_path / "mine.py"))
    result = run("doctor")
    assert result.exit_code == 1 and "mend " in result.stdout and "pip" not in result.stdout


def test_the_doctor_works_when_everything_is_broken_and_says_it_once(broken):
    (broken.add("damaged", {}) / "entry_points.txt").write_text("[djepa]\nno equals sign\n")
    broken.add("djepa", {"ours": "1 / 0"}, version="0.1.0")
    result = broken.run("-c", "from djepa.cli.plugins_commands import app; app()", "doctor", DJEPA_PLUGINS_OFF="acme,hollow")
    assert result.returncode == 1 and "ZeroDivisionError" in result.stdout and "damaged" in result.stdout
    assert "problems: 4." in result.stdout and "did not load" not in result.stderr


def test_listing_imports_neither_torch_nor_a_target(healthy):
    script = "import sys; sys.argv[1:] = ['list']\nfrom djepa.cli.plugins_commands import app\n" \
             "try: app()\nfinally: print('torch' in sys.modules, 'targets' in sys.modules)"
    assert healthy.run("-c", script).stdout.splitlines()[-1] == "False False"
