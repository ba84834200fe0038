"""Every check passes what keeps its contract, and fails what does not."""

import inspect
import json
import unittest

import broken_datasets
import broken_modalities
import broken_tokenizers
import pytest
from curves import Curve, Curves
from typer.testing import CliRunner

import djepa.testing
from djepa.cli.plugins_commands import app
from djepa.errors import UnknownNameError, UsageError
from djepa.order import RandomOrder
from djepa.plugins import temporary
from djepa.testing import CheckFailed, ExpectedFailure, NotApplicable
from djepa.testing.conformance import FUNCTIONS, modality_files
from djepa.testing.conformance.check import id_of
from djepa.testing.conformance.subject import GENERAL


def broken_in(module):
    return [one for _, one in inspect.getmembers(module, inspect.isclass)
            if one.__module__ == module.__name__ and hasattr(one, "check")]


def run(*arguments):
    return CliRunner().invoke(app, ["check", *arguments])


def result_of(check_id, *arguments, **options):
    check, = (check for check in djepa.testing.checks(*arguments, **options) if check.id == check_id)
    return check.result()


def assert_noticed(result, broken):
    assert result.status == "failed" and broken.says in result.reason, result


# ---- what keeps its contracts

def test_a_tokenizer_that_keeps_its_contract_passes(curves):
    checks = djepa.testing.checks("tokenizer", "patchify", modality="curve", options={"patch": {"t": 4}})
    outcomes = {check.id: check.result().status for check in checks}
    skipped = {name for name, status in outcomes.items() if status == "skipped"}
    assert set(outcomes.values()) == {"passed", "skipped"}
    assert skipped == {"missing-assets-are-refused", "moments-stand-for-samples"}


def test_a_modality_and_a_dataset_that_keep_their_contracts_pass(curves):
    result = run("curves_plugin")
    assert result.exit_code == 0 and result.stdout.splitlines()[-1].startswith("25/25 checks ran: 25 passed, 0 failed")
    assert "passed           modality/curve:files-come-back\n" in result.stdout
    assert "passed           dataset/curves:spawns\n" in result.stdout


# ---- what does not

@pytest.mark.parametrize("broken", broken_in(broken_modalities), ids=lambda one: one.__name__)
def test_a_broken_modality_is_noticed(offered, broken, monkeypatch):
    monkeypatch.setattr(modality_files, "SECONDS", 1.0)
    with offered("modality", "curve", broken):
        assert_noticed(result_of(broken.check, "modality", "curve"), broken)


@pytest.mark.parametrize("broken", broken_in(broken_tokenizers), ids=lambda one: one.__name__)
def test_a_broken_tokenizer_is_noticed(curves, offered, broken):
    with offered("tokenizer", "broken", broken):
        assert_noticed(result_of(broken.check, "tokenizer", "broken", modality="curve", options={"patch": {"t": 4}}), broken)


@pytest.mark.parametrize("broken", broken_in(broken_datasets), ids=lambda one: one.__name__)
def test_a_broken_dataset_is_noticed(curves, offered, broken):
    with offered("dataset", "broken", broken):
        assert_noticed(result_of(broken.check, "dataset", "broken"), broken)


def test_a_heavy_plugin_is_noticed():
    import heavy_plugin

    with temporary(heavy_plugin):
        result = result_of("light-import", "modality", "curve")
    assert result.status == "failed" and "imports numpy" in result.reason


@pytest.mark.parametrize(("kind", "module"), [("modality", broken_modalities), ("tokenizer", broken_tokenizers),
                                              ("dataset", broken_datasets)])
def test_every_check_has_something_that_fails_it(kind, module):
    assert {id_of(one) for one in (*GENERAL, *FUNCTIONS[kind])} - {one.check for one in broken_in(module)} == {"light-import"}


# ---- results

def test_a_check_has_an_id_and_a_text_that_names_its_subject(curves):
    checks = djepa.testing.checks("tokenizer", "patchify", modality="curve")
    assert str(checks[0]) == "tokenizer/patchify@curve:loads" and len({str(check) for check in checks}) == len(checks)


def test_nothing_is_imported_before_a_check_runs():
    result, *others = [check.result() for check in djepa.testing.checks("modality", "nosuchthing")]
    assert result.status == "failed" and "No modality 'nosuchthing'" in result.reason
    assert {one.status for one in others} == {"skipped"} and all("does not load" in one.reason for one in others)


def test_what_is_not_applicable_counts_as_skipped_with_any_test_runner():
    assert issubclass(NotApplicable, unittest.SkipTest) and issubclass(CheckFailed, AssertionError)


EXPECTED = {"is-well-formed": "it is older than its name", "unknown-extensions-are-refused": "it takes any"}


class Kurve(Curve):
    name = "kurve"


class ExcusedKurve(Kurve):
    expected_failures = EXPECTED


@pytest.mark.parametrize(("target", "given"), [(ExcusedKurve, {}), (Kurve, EXPECTED)])
def test_an_expected_failure_is_none_and_has_to_fail(offered, target, given):
    with offered("modality", "curve", target):
        checks = {check.id: check for check in djepa.testing.checks("modality", "curve", expected_failures=given)}
        result = checks["is-well-formed"].result()
        assert result.status == "expected-failure" and "older than its name" in result.reason and "kurve" in result.reason
        with pytest.raises(ExpectedFailure):
            checks["is-well-formed"].run()
        result = checks["unknown-extensions-are-refused"].result()
        assert result.status == "failed" and "take it off" in result.reason


def test_what_cannot_be_checked_is_refused():
    for arguments, options, message in [
        (("modalty", "curve"), {}, "Did you mean 'modality'"), (("tokenizer", "patchify"), {}, "modality=..."),
        (("modality", "curve"), {"modality": "curve"}, "leave out"), (("order", "random"), {"options": {"x": 1}}, "out x"),
        (("modality", "curve"), {"expected_failures": {"spawn": "x"}}, "Did you mean 'spawns'"),
    ]:
        with pytest.raises(UsageError, match=message):
            djepa.testing.checks(*arguments, **options)


def test_other_kinds_are_checked_for_what_all_have_in_common(offered):
    with offered("order", "mine", RandomOrder):
        assert [check.result().status for check in djepa.testing.checks("order", "mine")] == ["passed", "skipped"]
    with offered("order", "mine", Curve):
        assert result_of("loads", "order", "mine").status == "failed"


# ---- the command

class NeedsALength(Curves):
    def __init__(self, *, length: int) -> None:
        super().__init__(length=length)


def test_the_command_fails_and_says_why(offered):
    with offered("order", "mine", Curve):
        result, report = run("offering"), json.loads(run("order/mine", "--json").stdout)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "failed           order/mine:loads  'curves:Curve' is no subclass of djepa.order.GenerationOrder.",
        "skipped          order/mine:light-import  the plugin is an object that was registered by hand, and no module",
        "1/2 checks ran: 0 passed, 1 failed, 0 failed as expected; 1 skipped."]
    assert (report["ok"], report["ran"], report["total"]) == (False, 1, 2)
    assert report["results"][0] == {"subject": "order/mine", "check": "loads", "status": "failed",
                                    "reason": "'curves:Curve' is no subclass of djepa.order.GenerationOrder."}


def test_the_command_gives_settings_to_what_it_checks(curves):
    result = run("tokenizer/patchify", "--modality", "curve", "patch.x=4")
    assert result.exit_code == 1 and "tokenizer/patchify@curve:loads" in result.stdout
    assert "there is no axis 'x' to cut" in result.stdout


def test_the_command_says_what_it_did_not_check_and_how_to(offered, curves):
    with offered("tokenizer", "mine", broken_tokenizers.Rounds):
        result = run("offering")
        assert result.exit_code == 1 and "0/1 checks ran" in result.stdout
        assert "djepa plugins check tokenizer/mine --modality MODALITY" in result.stdout
    with offered("dataset", "mine", NeedsALength):
        assert "it needs settings: djepa plugins check dataset/mine length=..." in run("offering").stdout


def test_the_command_refuses_what_it_does_not_know(curves):
    for arguments, error, message in [
        (("curves_plugi",), UnknownNameError, "Did you mean 'curves_plugin'"), (("modality/curv",), UnknownNameError, "curve"),
        (("curves_plugin", "length=3"), UsageError, "KIND/NAME"), (("tokenizer/patchify",), UsageError, "modality"),
    ]:
        raised = run(*arguments).exception
        assert isinstance(raised, error) and message in str(raised)


def test_a_plugin_that_does_not_load_fails(monkeypatch, tmp_path):
    from djepa.plugins import reset

    (tmp_path / "mine.py").write_text("import no_such_module")
    monkeypatch.setenv("DJEPA_PLUGIN_PATH", str(tmp_path / "mine.py"))
    reset()
    try:
        result = run("mine")
    finally:
        monkeypatch.undo()
        reset()
    assert result.exit_code == 1 and "failed           plugin/local:mine:loads" in result.stdout
