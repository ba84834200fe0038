"""What all tests share: no network, no plugins of the surrounding environment, and property tests that repeat."""

import os
import subprocess

import pytest
from hypothesis import settings

# Waiting threads of OpenMP spin by default; where other programs want the same cores that makes small models tens of times
# slower (measured: 2.7 s instead of 0.06 s for three digits on two busy cores). Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reaches for the network fails at once instead of hanging
for name in [name for name in os.environ if name.startswith("DJEPA_")]:
    del os.environ[name]

# In CI the same examples every time, so that a failure belongs to the change; on a desk new ones are tried. Deadlines are
# off because the machines differ.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many kilobytes; skips the test where this process may not."""
    mounted = []

    def mount(kilobytes):
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", place], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs the right to mount a file system")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", place], check=True)
