"""The rules of the house, read from the source: where imports point, what no module does, how large things get.

A rule takes a module and yields the lines that break it. `BROKEN` shows each rule the code it is there to catch, `SOUND`
the code it must not mistake for it.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("sdk", "plugins", "tokenizers", "recipes")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = tuple(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
OURS = {Path(package).name for package in PACKAGES}

MAX_FILE_LINES = 320
MAX_FUNCTION_LINES = 70
CONTRACTS = ("djepa.tokenizer", "djepa.tokens", "djepa.seam", "djepa.errors", "djepa.hookspecs")  # what tokenizers may know
DISTRIBUTED = "sdk/djepa/train/distributed"  # the one home of torch.distributed
MODALITY_WORDS = {"image", "images", "video", "videos", "audio", "audios"}
MEDIA_LIBRARIES = {"PIL", "torchvision", "torchaudio", "soundfile", "av", "decord", "diffusers", "transformers"}
MODALITY_NAMES_ALLOWED = {  # path: reason
    "sdk/djepa/convert/published.py": "the published models it reads are models of pictures",
    "sdk/djepa/testing/golden.py": "so are the recorded numbers, of an autoencoder that diffusers runs",
}
GLOBAL_RANDOMNESS_ALLOWED = {  # path: reason
    "sdk/djepa/random.py": "seeds torch's generator for what cannot take one (initialization, dropout), then puts it back",
}


class Module:
    """A source file and the questions the rules ask of it."""

    def __init__(self, path: str, source: str) -> None:
        self.path, self.source = path, source
        self.root, self.package = path.split("/")[:2]

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.source)))

    @cached_property
    def bindings(self) -> dict[str, str]:
        """Every imported name and what it stands for, wherever in the module it is imported."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.split(".")[0]
                    found[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{self.origin(node)}.{alias.name}"
        return found

    def origin(self, node: ast.ImportFrom) -> str:
        return f"{self.package}.{node.module or ''}" if node.level else str(node.module)

    def imports(self) -> Iterator[tuple[int, str]]:
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.lineno, f"{self.origin(node)}.{alias.name}") for alias in node.names)

    def dotted(self, node: ast.AST) -> str:
        """`np.random.seed` as "numpy.random.seed"; "" where the chain does not start at an import or a builtin."""
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        if isinstance(node, ast.Name):
            return self.bindings.get(node.id, node.id if node.id in ("eval", "exec") else "")
        return ""

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in self.nodes if isinstance(node, ast.Call))

    def names_in_strings(self) -> Iterator[tuple[int, str]]:
        """String literals that may be names: no docstrings, and no prose, which has spaces in it."""
        docs = {id(node.value) for node in self.nodes if isinstance(node, ast.Expr)}
        for node in self.nodes:
            if (isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
                    and not re.search(r"\s", node.value)):
                yield node.lineno, node.value


def keyword(call: ast.Call, name: str) -> object:
    """The constant given for a keyword argument; the node where it is no constant; None where it is not given."""
    given = next((item.value for item in call.keywords if item.arg == name), None)
    return given.value if isinstance(given, ast.Constant) else given


def imports_point_one_way(module: Module) -> Iterator[str]:
    allowed = {module.package} | ({"djepa", "djepa_tokenizers"} if module.root == "plugins" else set())
    for line, target in module.imports():
        contract = module.root == "tokenizers" and any(f"{target}.".startswith(f"{name}.") for name in CONTRACTS)
        if target.split(".")[0] in OURS - allowed and not contract:
            yield f"{line}: {module.root} must not import {target}"
    for line, name in module.names_in_strings():
        if re.split(r"[.:]", name)[0] in OURS - allowed - {"djepa"}:
            yield f"{line}: {module.root} must not name {name}"


def core_names_no_modality(module: Module) -> Iterator[str]:
    if module.root != "sdk" or module.path in MODALITY_NAMES_ALLOWED:
        return
    for line, target in module.imports():
        if target.split(".")[0] in MEDIA_LIBRARIES:
            yield f"{line}: {target} reads or makes media: that is a plugin's work"
    words = list(module.names_in_strings())
    for node in module.nodes:
        for field in ("id", "attr", "arg", "name", "asname"):
            if isinstance(name := getattr(node, field, None), str):
                words.append((getattr(node, "lineno", 0), name))
    for line, word in words:
        if MODALITY_WORDS & {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", word)}:
            yield f"{line}: {word!r} names a modality"


def distribution_has_one_home(module: Module) -> Iterator[str]:
    if module.path.startswith(f"{DISTRIBUTED}/"):
        return
    chains = [(node.lineno, module.dotted(node)) for node in module.nodes if isinstance(node, ast.Attribute)]
    for line, name in [*module.imports(), *chains]:
        if f"{name}.".startswith("torch.distributed."):
            yield f"{line}: torch.distributed has one home, {DISTRIBUTED}"


def devices_are_passed(module: Module) -> Iterator[str]:
    for call in module.calls():
        if isinstance(call.func, ast.Attribute) and call.func.attr == "cuda":
            yield f"{call.lineno}: .cuda()"


# torch.nn.init is missing on purpose: modules draw from torch's generator while they are built, as torch's own layers do,
# and the one place that builds models seeds it.
TORCH_GLOBAL = {"seed", "manual_seed", "manual_seed_all", "set_rng_state"}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson",
               "rand_like", "randn_like", "randint_like"}
TORCH_METHODS = {"normal_", "uniform_", "bernoulli_", "exponential_", "random_", "geometric_", "cauchy_", "log_normal_"}


def randomness_is_keyed(module: Module) -> Iterator[str]:
    if module.root == "recipes" or module.path in GLOBAL_RANDOMNESS_ALLOWED:
        return
    for call in module.calls():
        scope, _, last = module.dotted(call.func).rpartition(".")
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        unkeyed = keyword(call, "generator") is None
        if ((scope == "numpy.random" and last.islower() and (last != "default_rng" or not call.args))
                or (scope == "random" and last.islower())
                or (scope.split(".")[0] == "torch" and last in TORCH_GLOBAL)
                or (scope == "torch" and last in TORCH_DRAWS and unkeyed)
                or (scope != "torch.nn.init" and method in TORCH_METHODS and unkeyed)):
            yield f"{call.lineno}: {ast.unparse(call.func)}() uses a global generator (parameters: torch.nn.init)"


RUNS_CODE = {"eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads",
             "joblib.load", "marshal.load", "marshal.loads", "shelve.open", "yaml.full_load", "yaml.unsafe_load"}


def data_is_not_code(module: Module) -> Iterator[str]:
    classes = [node for node in module.nodes if isinstance(node, ast.ClassDef)]
    safe = {node.name for node in classes if "yaml.SafeLoader" in map(module.dotted, node.bases)} | {"yaml.SafeLoader"}
    for call in module.calls():
        name = module.dotted(call.func)
        if (name in RUNS_CODE or (name == "torch.load" and keyword(call, "weights_only") is not True)
                or (name == "numpy.load" and keyword(call, "allow_pickle") not in (None, False))
                or (name == "yaml.load" and not safe & set(map(ast.unparse, call.args[1:])))):
            yield f"{call.lineno}: {ast.unparse(call.func)}() can run what a file says"


def things_stay_small(module: Module) -> Iterator[str]:
    if (lines := module.source.count("\n")) > MAX_FILE_LINES:
        yield f"1: {lines} lines, more than {MAX_FILE_LINES}: it may hold two ideas"
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {length} lines, more than {MAX_FUNCTION_LINES}"


RULES = [imports_point_one_way, core_names_no_modality, distribution_has_one_home, devices_are_passed,
         randomness_is_keyed, data_is_not_code, things_stay_small]

CORE, IMAGE, TOKENIZER, RECIPE = (f"{package}/module.py" for package in (
    "sdk/djepa", "plugins/djepa_image", "tokenizers/djepa_tokenizers", "recipes/djepa_recipes"))

BROKEN = [
    (imports_point_one_way, CORE, "def f():\n    from djepa_image import digits"),
    (imports_point_one_way, CORE, "importlib.import_module('djepa_tokenizers.patchify')"),
    (imports_point_one_way, RECIPE, "import djepa"),
    (imports_point_one_way, RECIPE, "from djepa.hookspecs import hookimpl"),
    (imports_point_one_way, TOKENIZER, "import djepa"),
    (imports_point_one_way, TOKENIZER, "from djepa.model import MaskedModel"),
    (imports_point_one_way, TOKENIZER, "import djepa_image"),
    (imports_point_one_way, "plugins/another/module.py", "import djepa_image.files"),
    (imports_point_one_way, IMAGE, "from djepa_recipes import x"),
    (core_names_no_modality, CORE, "if kind == 'image': pass"),
    (core_names_no_modality, CORE, "load_video = None"),
    (core_names_no_modality, CORE, "class AudioHead: pass"),
    (core_names_no_modality, CORE, "import soundfile"),
    (distribution_has_one_home, CORE, "import torch\nok = torch.distributed.is_initialized()"),
    (distribution_has_one_home, CORE, "from torch import distributed as dist"),
    (distribution_has_one_home, IMAGE, "import torch.distributed.checkpoint as dcp"),
    (devices_are_passed, CORE, "x = model.cuda()"),
    (randomness_is_keyed, CORE, "import numpy as np\nnp.random.seed(0)"),
    (randomness_is_keyed, CORE, "import numpy as np\nrng = np.random.default_rng()"),
    (randomness_is_keyed, IMAGE, "from random import shuffle\nshuffle(items)"),
    (randomness_is_keyed, CORE, "import torch\ntorch.manual_seed(0)"),
    (randomness_is_keyed, TOKENIZER, "import torch\nx = torch.randn(3)"),
    (randomness_is_keyed, CORE, "noise.normal_()"),
    (data_is_not_code, CORE, "import torch\ntorch.load(path, weights_only=False)"),
    (data_is_not_code, CORE, "import pickle as p\np.load(file)"),
    (data_is_not_code, CORE, "import yaml\nyaml.load(text, yaml.Loader)"),
    (data_is_not_code, CORE, "import numpy as np\nnp.load(path, allow_pickle=True)"),
    (data_is_not_code, CORE, "eval(text)"),
    (things_stay_small, CORE, "\n" * 321),
    (things_stay_small, CORE, "def f():\n" + "    x = 1\n" * 70),
]

SOUND = [
    (imports_point_one_way, IMAGE, "import djepa\nfrom djepa_tokenizers import patchify"),
    (imports_point_one_way, IMAGE, "register('digits', 'djepa_image.digits:Digits')"),
    (imports_point_one_way, TOKENIZER, "from djepa.tokens import Tokens\nfrom . import patchify"),
    (imports_point_one_way, CORE, "import djepa\nPROJECT = 'djepa'"),
    (core_names_no_modality, CORE, '"""An image."""\nhelp = "for example image/digits"  # video'),
    (core_names_no_modality, IMAGE, "name = 'image'"),
    (distribution_has_one_home, f"{DISTRIBUTED}/meeting.py", "import torch.distributed"),
    (devices_are_passed, CORE, "import torch\nif torch.cuda.is_available(): model.to('cuda')"),
    (randomness_is_keyed, CORE, "import numpy as np\nrng = np.random.default_rng(3)\nrng.normal()"),
    (randomness_is_keyed, CORE, "import torch\ng = torch.Generator()\ng.manual_seed(0)"),
    (randomness_is_keyed, CORE, "import torch\nx = torch.randn(3, generator=g)\nx.normal_(generator=g)"),
    (randomness_is_keyed, CORE, "from djepa import random\nrandom.derive(0)"),
    (data_is_not_code, CORE, "import torch\ntorch.load(path, weights_only=True)\nmodel.eval()"),
    (data_is_not_code, CORE, "import yaml\nclass Strict(yaml.SafeLoader): pass\nyaml.load(text, Strict)"),
    (things_stay_small, CORE, "def f():\n" + "    x = 1\n" * 69),
]


@cache
def modules() -> tuple[Module, ...]:
    files = sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py"))
    return tuple(Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in files)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps(rule):
    broken = [f"{module.path}:{line}" for module in modules() for line in rule(module)]
    assert not broken, "\n" + "\n".join(dict.fromkeys(broken))


@pytest.mark.parametrize(("rule", "path", "source"), BROKEN)
def test_a_rule_catches(rule, path, source):
    assert list(rule(Module(path, source)))


@pytest.mark.parametrize(("rule", "path", "source"), SOUND)
def test_a_rule_lets_pass(rule, path, source):
    assert not list(rule(Module(path, source)))


@pytest.mark.parametrize(("rule", "allowed"), [(randomness_is_keyed, GLOBAL_RANDOMNESS_ALLOWED),
                                               (core_names_no_modality, MODALITY_NAMES_ALLOWED)])
def test_every_exception_is_still_needed(rule, allowed):
    sources = {path: (ROOT / path).read_text(encoding="utf-8") for path in allowed}
    unneeded = [path for path, source in sources.items() if not list(rule(Module(CORE, source)))]
    assert not unneeded, f"these modules need no exception any more: {unneeded}"


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_holds_the_packages_of_the_wheel_and_nothing_else(root):
    found = {path.name for path in (ROOT / root).iterdir() if path.name != "__pycache__"}
    assert found == {Path(package).name for package in PACKAGES if package.startswith(f"{root}/")}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_importable_and_typed(package):
    assert {"__init__.py", "py.typed"} <= {path.name for path in (ROOT / package).iterdir()}


def test_tests_are_no_packages_and_have_names_of_their_own():
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert not [path for path in files if path.name == "__init__.py"]
    assert len({path.name for path in files}) == len(files)
