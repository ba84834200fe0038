import pytest

from djepa.errors import PluginError, UnknownNameError
from djepa.hookspecs import hookimpl
from djepa.plugins import PluginHost, host, register, reset, temporary


class Plugin:
    """A plugin as a notebook would define one."""

    def __init__(self, *names, target="targets:Thing"):
        self.names, self.target = names, target

    @hookimpl
    def djepa_register_heads(self, register):
        for name in self.names:
            register(name, self.target)


@pytest.fixture
def fresh(site):
    reset()
    yield site
    reset()


def test_a_registered_plugin_is_as_good_as_an_installed_one(fresh):
    record = register(Plugin("own"))
    assert (record.name, record.distribution, record.status) == ("plugin", "local", "ok")
    assert host().get("head", "own").__name__ == "Thing" and host().find("head", "local:own").plugin == "plugin"
    assert [one.name for one in host().records] == ["plugin"]


def test_a_module_is_registered_under_its_own_name(fresh, offering):
    fresh.add("acme", {"acme_module": offering("patch")}, entries={})
    import acme_module

    assert register(acme_module).name == "acme_module"
    assert host().names("tokenizer") == ["patch"]


def test_the_host_is_one_and_lasts_until_it_is_reset(fresh):
    first = host()
    register(Plugin("own"))
    assert host() is first
    reset()
    assert host() is not first and host().names("head") == []


def test_registering_again_takes_the_place_of_the_first(fresh):
    register(Plugin("own", "old"))
    register(Plugin("own", "new"))
    assert host().names("head") == ["new", "own"] and len(host().records) == 1


def test_what_cannot_be_registered_changes_nothing(fresh):
    register(Plugin("own"))
    for bad in (Plugin("own", target="targets"), Plugin("Own"), Plugin("own", "own")):
        with pytest.raises(PluginError, match="did not load"):
            register(bad)
    assert host().names("head") == ["own"]


@pytest.mark.parametrize("nothing", [Plugin(), object(), "acme_module"])
def test_registering_nothing_is_an_error(fresh, nothing):
    with pytest.raises(PluginError, match="adds nothing: is @djepa"):
        register(nothing)
    assert host().records == ()


def test_a_bad_name_is_refused(fresh):
    with pytest.raises(PluginError, match="'My Plugin' cannot be the name of a plugin"):
        register(Plugin("own"), name="My Plugin")


def test_what_is_installed_cannot_be_registered_as_well(fresh, offering):
    fresh.add("acme", {"acme": offering("patch")})
    host().names("tokenizer")
    import acme

    with pytest.raises(PluginError, match="loaded already, as plugin 'acme:acme'"):
        register(acme)


def test_temporary_plugins_nest_and_leave(fresh):
    register(Plugin("lasting"))
    with temporary(Plugin("outer")) as outer:
        with temporary(Plugin("inner")) as inner:
            assert host().names("head") == ["inner", "lasting", "outer"]
            assert outer.name != inner.name
        assert host().names("head") == ["lasting", "outer"]
    assert host().names("head") == ["lasting"]


def test_a_temporary_plugin_leaves_after_an_error(fresh):
    with pytest.raises(ZeroDivisionError), temporary(Plugin("own")):
        raise ZeroDivisionError
    with pytest.raises(UnknownNameError):
        host().find("head", "own")


def test_hosts_do_not_share_what_is_registered(fresh):
    one, other = PluginHost(), PluginHost()
    one.register(Plugin("own"))
    assert one.names("head") == ["own"] and other.names("head") == []
