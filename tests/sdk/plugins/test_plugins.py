import inspect
import logging
import os
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djepa.errors import PluginError, UnknownNameError
from djepa.hookspecs import HookSpecs
from djepa.plugins import KINDS, Contribution, PluginHost, host, lookup, reset


def statuses():
    return {record.qualified: record.status for record in PluginHost().records}


def record_of(name):
    record, = (record for record in PluginHost().records if record.name == name)
    return record


# What works.

def test_a_plugin_is_found_listed_and_imported(site, offering):
    site.add("Acme_Tokens", {"acme": offering("patch")}, version="1.2")
    found = PluginHost()
    expected = Contribution("tokenizer", "patch", "targets:Thing", "about patch", plugin="acme", distribution="acme-tokens")
    assert found.names("tokenizer") == ["patch"] and found.names("head") == []
    assert found.contributions("tokenizer") == [expected]
    assert found.find("tokenizer", "patch") == found.find("tokenizer", "Acme.Tokens:patch") == expected
    record, = found.records
    assert (record.distribution, record.version, record.module, record.status) == ("acme-tokens", "1.2", "acme", "ok")
    assert record.contributions == (expected,) and record.milliseconds > 0 and record.notes == ()
    assert found.get("tokenizer", "patch") is sys.modules["targets"].Thing


@pytest.mark.parametrize(("hook", "kind"), KINDS.items())
def test_every_hook_adds_its_kind(site, offering, hook, kind):
    target = "targets" if kind == "recipes" else "targets:Thing.Inner"
    site.add("acme", {"acme": offering("thing", hook=hook, target=target)})
    found = PluginHost()
    assert found.names(kind) == ["thing"]
    targets = sys.modules["targets"] if (got := found.get(kind, "thing")) else None
    assert got is (targets if kind == "recipes" else targets.Thing.Inner)


def test_there_is_a_kind_for_every_hook():
    assert set(KINDS) == {name for name, _ in inspect.getmembers(HookSpecs, inspect.isfunction) if name[0] != "_"}
    assert len(set(KINDS.values())) == len(KINDS)


def test_djepas_own_contributions_come_through_the_same_door(site):
    site.add("djepa", {}, entries={"core": "djepa.builtin"}, version="0.1.0")
    found = PluginHost()
    assert {"gaussian", "flow"} <= set(found.names("head"))
    assert found.find("head", "flow") == found.find("head", "djepa:flow")


AN_OBJECT = """
import djepa.hookspecs as djepa

class Hooks:
    @djepa.hookimpl
    def djepa_register_heads(self, register):
        register("h", "targets:Thing")

hooks = Hooks()
"""


def test_an_object_can_be_a_plugin(site):
    site.add("acme", {"acme": AN_OBJECT}, entries={"acme": "acme:hooks"})
    assert PluginHost().names("head") == ["h"]


def test_nothing_is_imported_before_it_is_asked_for(site, offering):
    site.add("acme", {"acme": offering("patch")})
    script = """if True:
        import sys
        def loaded(): return [name for name in ("torch", "acme", "targets") if name in sys.modules]
        import djepa.plugins
        host = djepa.plugins.host()
        print(loaded())
        host.names("tokenizer"); print(loaded())
        host.get("tokenizer", "patch"); print(loaded())
    """
    assert site.run("-c", script).stdout.splitlines() == ["[]", "['acme']", "['acme', 'targets']"]


# What does not.

HOOK = """
import djepa.hookspecs as djepa

@djepa.hookimpl
def djepa_register_tokenizers(register):
    register('early', 'targets:Thing')
    """
BROKEN = {
    "import-error": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax-error": ("def f(:\n", "SyntaxError"),
    "sys-exit": ("raise SystemExit('not today')", "SystemExit: not today"),
    "raising-hook": (HOOK + "1 / 0", "ZeroDivisionError: division by zero"),
    "misspelt-hook": (HOOK.replace("djepa_register_tokenizers", "djepa_register_tokenisers"),
                      "Did you mean 'djepa_register_tokenizers'"),
    "unknown-argument": (HOOK.replace("(register)", "(register, version)"), "version"),
    "returning-hook": (HOOK + "return {'late': 'targets:Thing'}", "instead"),
    "capital-name": (HOOK + "register('Late', 'targets:Thing')", "'Late' cannot be the name of a tokenizer"),
    "colon-name": (HOOK + "register('acme:late', 'targets:Thing')", "'acme:late' cannot be the name"),
    "class-target": (HOOK + "register('late', dict)", "write 'builtins:dict'"),
    "module-target": (HOOK + "register('late', 'targets')", "should be a string like 'package.module:Class'; it is 'targets'"),
    "path-target": (HOOK + "register('late', 'tar gets:Thing')", "it is 'tar gets:Thing'"),
    "odd-summary": (HOOK + "register('late', 'targets:Thing', summary=3)", "should be a string; it is 3"),
    "registered-twice": (HOOK + "register('early', 'targets:Thing')", "tokenizer 'early' is registered twice"),
    "asks-too-early": ("from djepa.plugins import host\n" + HOOK + "host().names('head')", "still being loaded"),
    "odd-contract": ("DJEPA_CONTRACT = '1.0'\n" + HOOK, "two whole numbers like (1, 0); it is '1.0'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_left_out_and_stops_nobody(site, offering, caplog, case):
    source, cause = BROKEN[case]
    site.add("before", {"first": offering("one")})
    site.add("broken", {"culprit": source}, version="2.3")
    site.add("following", {"last": offering("two")})
    reset()  # this process's own host, for the plugin that asks it too early
    try:
        assert host().names("tokenizer") == ["one", "two"]
        first, culprit, last = host().records
    finally:
        reset()
    assert (first.status, culprit.status, last.status) == ("ok", "failed", "ok")
    assert cause in (culprit.error or "") and "\n" not in culprit.error and culprit.contributions == ()
    assert "Traceback (most recent call last)" in (culprit.traceback or "")
    warning, = caplog.records
    assert (warning.levelno, warning.name, warning.exc_info) == (logging.WARNING, "djepa.plugins", None)
    assert all(part in warning.message for part in ("culprit", "broken 2.3", cause, "djepa plugins doctor"))
    assert "\n" not in warning.message


@pytest.mark.parametrize(("contract", "needed"), [((2, 0), "newer version of djepa"), ((1, 1), "newer version of djepa"),
                                                  ((0, 9), "newer version of the plugin")])
def test_another_contract_is_refused_before_a_hook_runs(site, offering, contract, needed):
    site.add("acme", {"acme": f"DJEPA_CONTRACT = {contract}\n" + HOOK + "raise SystemExit('a hook ran')"})
    record = record_of("acme")
    assert record.status == "incompatible" and needed in (record.error or "")
    assert f"{contract[0]}.{contract[1]}" in (record.error or "")


def test_our_contract_is_accepted(site, offering):
    site.add("acme", {"acme": "DJEPA_CONTRACT = (1, 0)\n" + offering("patch")})
    assert record_of("acme").status == "ok"


def test_interrupting_a_plugin_is_no_failure_of_the_plugin(site, offering):
    site.add("acme", {"acme": "raise KeyboardInterrupt"})
    found = PluginHost()
    with pytest.raises(KeyboardInterrupt):
        found.names("tokenizer")
    site.add("acme", {"acme": offering("patch")})
    assert found.names("tokenizer") == ["patch"]


def test_registering_after_the_hook_has_returned_is_refused(site, offering):
    site.add("acme", {"acme": HOOK + "global later; later = register"})
    found = PluginHost()
    assert found.names("tokenizer") == ["early"]
    with pytest.raises(PluginError, match="after the hook had returned"):
        sys.modules["acme"].later("late", "targets:Thing")
    assert found.names("tokenizer") == ["early"]


def test_a_plugin_without_hooks_is_noted(site):
    site.add("acme", {"acme": "def djepa_register_tokenizers(register): pass"})
    assert "is @djepa.hookimpl missing" in record_of("acme").notes[0]


def test_an_optional_hook_of_another_version_is_skipped(site, offering):
    source = offering("patch") + "\n@djepa.hookimpl(optionalhook=True)\ndef djepa_register_wonders(register):\n    1 / 0\n"
    site.add("acme", {"acme": source})
    assert record_of("acme").status == "ok"


@pytest.mark.parametrize("damage", [b"[djepa]\nno equals sign\n", b"\xff\xfe[djepa"])
def test_damaged_metadata_hides_no_other_plugin(site, offering, damage):
    info = site.add("damaged", {})
    (info / "entry_points.txt").write_bytes(damage)
    site.add("acme", {"acme": offering("patch")})
    assert statuses() == {"acme:acme": "ok", "damaged:unreadable": "failed"}


def test_damaged_metadata_of_others_is_none_of_our_business(site, offering):
    (site.add("damaged", {}) / "entry_points.txt").write_text("[console_scripts]\nno equals sign\n")
    site.add("acme", {"acme": offering("patch")})
    assert statuses() == {"acme:acme": "ok"}


def test_a_distribution_that_lost_its_metadata_still_has_its_plugin(site, offering):
    (site.add("acme", {"acme": offering("patch")}) / "METADATA").unlink()
    assert statuses() == {"unknown:acme": "ok"}


# Names that meet.

def test_two_plugins_of_one_name_are_both_there(site, offering):
    site.add("acme", {"acme_module": offering("one")}, entries={"mocap": "acme_module"})
    site.add("bolt", {"bolt_module": offering("two")}, entries={"mocap": "bolt_module"})
    assert statuses() == {"acme:mocap": "ok", "bolt:mocap": "ok"}
    assert PluginHost().names("tokenizer") == ["one", "two"]


def test_the_second_plugin_of_one_module_says_so(site, offering):
    site.add("acme", {"shared": offering("one")})
    site.add("bolt", {}, entries={"copy": "shared"})
    assert statuses() == {"acme:shared": "ok", "bolt:copy": "failed"}
    assert "loaded already, as plugin 'acme:shared'" in (record_of("copy").error or "")


def test_nobody_can_load_our_modules_in_our_stead(site, offering):
    site.add("djepa", {"ours": offering("patch")}, version="0.1.0")
    site.add("acme", {}, entries={"mine": "ours"})
    assert statuses() == {"djepa:ours": "ok", "acme:mine": "failed"}


def test_a_name_that_two_plugins_offer_needs_its_distribution(site, offering):
    site.add("acme", {"acme": offering("patch", "own")})
    site.add("bolt", {"bolt": offering("patch")})
    found = PluginHost()
    with pytest.raises(UnknownNameError, match=r"ambiguous.*'acme:patch' or 'bolt:patch'"):
        found.find("tokenizer", "patch")
    assert found.find("tokenizer", "acme:patch").plugin == "acme" and found.find("tokenizer", "bolt:patch").plugin == "bolt"
    assert found.names("tokenizer") == ["acme:patch", "bolt:patch", "own"]
    assert ["ambiguous" in note for record in found.records for note in record.notes] == [True, True]


def test_the_same_name_may_be_of_two_kinds(site, offering):
    site.add("acme", {"acme": offering("patch")})
    site.add("bolt", {"bolt": offering("patch", hook="djepa_register_heads")})
    found = PluginHost()
    assert found.names("tokenizer") == found.names("head") == ["patch"]


def test_nobody_can_take_over_a_name_of_ours(site, offering):
    site.add("djepa", {"ours": offering("patch")}, version="0.1.0")
    site.add("acme", {"acme": offering("patch")})
    found = PluginHost()
    assert found.find("tokenizer", "patch").distribution == found.find("tokenizer", "djepa:patch").distribution == "djepa"
    assert found.find("tokenizer", "acme:patch").distribution == "acme"
    assert found.names("tokenizer") == ["acme:patch", "patch"]
    ours, theirs = found.records
    assert ours.notes == () and "reserved" in theirs.notes[0] and "'acme:patch'" in theirs.notes[0]


def test_one_distribution_cannot_offer_a_name_twice(site, offering):
    site.add("acme", {"first": offering("patch"), "second": offering("other", "patch")})
    assert statuses() == {"acme:first": "ok", "acme:second": "failed"}
    assert PluginHost().names("tokenizer") == ["patch"]


@given(st.lists(st.tuples(st.sampled_from(["djepa", "acme", "bolt", "cog"]), st.sampled_from("abc")), unique=True))
def test_every_listed_name_finds_one_contribution_of_its_own(offers):
    offered = [Contribution("head", name, "m:C", "", "p", distribution) for distribution, name in offers]
    found = [lookup.find("head", name, offered, []) for name in lookup.names(offered)]
    assert sorted(found, key=offered.index) == offered
    assert [lookup.find("head", one.qualified, offered, []) for one in offered] == offered


# Looking up.

def test_an_unknown_name_tells_what_there_is_and_what_is_missing(site, offering):
    site.add("acme", {"acme": offering("patchify", "codes")})
    site.add("broken", {"culprit": "import no_such_module"})
    with pytest.raises(UnknownNameError) as caught:
        PluginHost().get("tokenizer", "patchfy")
    assert str(caught.value) == ("No tokenizer 'patchfy'. Did you mean 'patchify'? Known: codes, patchify. "
                                 "These plugins did not load: broken:culprit (failed) (djepa plugins doctor).")


def test_an_unknown_distribution_or_kind_is_an_unknown_name(site, offering):
    site.add("acme", {"acme": offering("patch")})
    with pytest.raises(UnknownNameError, match="No tokenizer 'bolt:patch'"):
        PluginHost().find("tokenizer", "bolt:patch")
    with pytest.raises(UnknownNameError, match="Did you mean 'tokenizer'"):
        PluginHost().names("tokeniser")


@pytest.mark.parametrize(("target", "cause"), [
    ("no_such_module:Thing", "ModuleNotFoundError"), ("targets:Thin", "AttributeError"), ("leaving:Thing", "SystemExit")])
def test_a_target_that_cannot_be_imported_names_everything(site, offering, target, cause):
    site.add("acme-tokens", {"acme": offering("patch", target=target)})
    (site.path / "leaving.py").write_text("raise SystemExit(3)")
    with pytest.raises(PluginError) as caught:
        PluginHost().get("tokenizer", "patch")
    assert all(part in str(caught.value) for part in ("tokenizer 'patch'", "'acme'", "acme-tokens", repr(target), cause))
    assert type(caught.value.__cause__).__name__ == cause


def test_many_threads_discover_once(site, tmp_path):
    site.add("acme", {"acme": HOOK + f"import os, time; time.sleep(0.05); os.mkdir({str(tmp_path / 'once')!r})"})
    found, seen = PluginHost(), []
    threads = [threading.Thread(target=lambda: seen.append(found.records)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 and {record.status for records in seen for record in records} == {"ok"}


# The environment.

@pytest.fixture
def three(site, offering):
    site.add("djepa", {"ours": offering("patch")}, version="0.1.0")
    site.add("acme", {"acme": offering("one")})
    site.add("Bolt_Pack", {"bolt": offering("two")})


@pytest.mark.parametrize(("variable", "value", "working"), [
    ("DJEPA_PLUGINS", "acme", {"patch", "one"}),
    ("DJEPA_PLUGINS", "bolt_pack:bolt, acme", {"patch", "one", "two"}),
    ("DJEPA_PLUGINS", "", {"patch"}),
    ("DJEPA_PLUGINS_OFF", "acme,Bolt_Pack:bolt", {"patch"}),
    ("DJEPA_PLUGINS_OFF", "ours", {"one", "two"}),
    ("DJEPA_PLUGINS_OFF", "", {"patch", "one", "two"}),
])
def test_the_environment_chooses_plugins(three, monkeypatch, caplog, variable, value, working):
    monkeypatch.setenv(variable, value)
    found = PluginHost()
    assert set(found.names("tokenizer")) == working
    off = [record for record in found.records if record.status == "disabled"]
    assert len(off) == 3 - len(working) and all(variable in (record.error or "") for record in off)
    assert not caplog.records


def test_a_plugin_that_is_switched_off_is_not_imported(site, monkeypatch):
    site.add("acme", {"acme": "raise SystemExit"})
    monkeypatch.setenv("DJEPA_PLUGINS_OFF", "acme")
    assert statuses() == {"acme:acme": "disabled"} and "acme" not in sys.modules


def test_denying_wins_over_allowing(three, monkeypatch):
    monkeypatch.setenv("DJEPA_PLUGINS", "acme,bolt")
    monkeypatch.setenv("DJEPA_PLUGINS_OFF", "bolt")
    assert PluginHost().names("tokenizer") == ["one", "patch"]


def test_switching_off_what_is_not_there_is_pointed_out(three, monkeypatch, caplog):
    monkeypatch.setenv("DJEPA_PLUGINS_OFF", "amce")
    assert len(PluginHost().names("tokenizer")) == 3
    assert "'amce'" in caplog.text and "Did you mean 'acme'" in caplog.text


@pytest.mark.parametrize("source", ["import no_such_module", "DJEPA_CONTRACT = (9, 0)"])
def test_strictness_raises_at_every_look_up(site, monkeypatch, source):
    site.add("acme", {"acme": source})
    monkeypatch.setenv("DJEPA_PLUGINS_STRICT", "1")
    found = PluginHost()
    for _ in range(2):
        with pytest.raises(PluginError, match=r"'acme' of acme 1\.0"):
            found.names("tokenizer")


def test_strictness_can_be_said_to_be_off(site, monkeypatch):
    site.add("acme", {"acme": "import no_such_module"})
    monkeypatch.setenv("DJEPA_PLUGINS_STRICT", "0")
    assert statuses() == {"acme:acme": "failed"}


def test_tracing_shows_hook_calls_and_tracebacks(site, offering, monkeypatch, caplog, capsys):
    site.add("acme", {"acme": offering("patch")})
    site.add("broken", {"culprit": HOOK + "1 / 0"})
    monkeypatch.setenv("DJEPA_PLUGINS_TRACE", "1")
    assert PluginHost().names("tokenizer") == ["patch"]
    printed = capsys.readouterr()
    assert "acme:acme djepa_register_tokenizers" in printed.err and "ZeroDivisionError" in printed.err and not printed.out
    assert "Traceback (most recent call last)" in caplog.text


# Files that are not installed.

def test_a_loose_file_is_a_plugin_and_its_own_target(site, offering, monkeypatch, tmp_path):
    (tmp_path / "my_tokens.py").write_text(offering("loose", target="my_tokens:Mine", before="class Mine: pass\n"))
    site.add("acme", {"acme": offering("patch")})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DJEPA_PLUGIN_PATH", "./my_tokens.py")
    found = PluginHost()
    assert found.names("tokenizer") == ["loose", "patch"]
    assert found.get("tokenizer", "loose").__module__ == "my_tokens"
    assert found.get("tokenizer", "local:loose") is found.get("tokenizer", "loose") is PluginHost().get("tokenizer", "loose")
    assert (found.records[-1].distribution, found.records[-1].module) == ("local", str(tmp_path / "my_tokens.py"))


@pytest.mark.parametrize(("file", "source", "cause"), [
    ("culprit.py", "import no_such_module", "ModuleNotFoundError"),
    ("culprit.py", None, "not a Python file"),
    ("culprit.txt", "", "not a Python file"),
    ("my-culprit.py", "", "call it 'my_culprit.py'"),
    ("Culprit.py", "", "lower case"),
    ("json.py", "", "would hide the module 'json'"),
])
def test_a_broken_loose_file_stops_nobody(site, offering, monkeypatch, tmp_path, file, source, cause):
    (tmp_path / "good.py").write_text(offering("loose"))
    if source is not None:
        (tmp_path / file).write_text(source)
    modules = set(sys.modules)
    monkeypatch.setenv("DJEPA_PLUGIN_PATH", os.pathsep.join([str(tmp_path / file), str(tmp_path / "good.py")]))
    bad, good = PluginHost().records
    assert (bad.status, good.status) == ("failed", "ok") and cause in (bad.error or "")
    assert "culprit" not in set(sys.modules) - modules


# Processes.

PROCESSES = """
import multiprocessing, sys
from djepa import hookimpl
from djepa.plugins import host, register

class ByHand:
    @hookimpl
    def djepa_register_tokenizers(self, register):
        register("by-hand", "targets:Thing")

def names(queue):
    queue.put(host().names("tokenizer"))

if __name__ == "__main__":
    register(ByHand())
    mine = host()
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        child = context.Process(target=names, args=(queue,))
        child.start()
        print(method, *queue.get(timeout=60))
        child.join()
    assert host() is mine
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_process_finds_the_plugins_itself(site, offering):
    site.add("acme", {"acme": offering("patch")})
    (site.path / "loose_file.py").write_text(offering("loose"))
    (site.path / "script.py").write_text(PROCESSES)
    result = site.run("script.py", DJEPA_PLUGIN_PATH="loose_file.py")
    assert result.stdout.splitlines() == ["fork by-hand loose patch", "spawn loose patch"], result.stderr


FORK_WHILE_LOADING = """
import os, threading, time
from djepa.plugins import host

loading = threading.Thread(target=lambda: host().names("tokenizer"))
loading.start()
time.sleep(0.3)   # the thread is inside the plugin's hook now, and holds the host
child = os.fork()
names = host().names("tokenizer")
if child == 0:
    os._exit(0 if names == ["early"] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), names)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_during_discovery_does_not_hang(site):
    site.add("acme", {"acme": HOOK + "import time; time.sleep(0.6)"})
    result = site.run("-W", "ignore", "-c", FORK_WHILE_LOADING)
    assert result.stdout.splitlines() == ["0 ['early']"], result.stderr
