"""A kind of media that keeps every contract: curves, one number per step of time, as JSON in a file."""

import base64
import json

import torch

from djepa.dataset import Dataset, Example, drawn_view
from djepa.errors import MediaError, UsageError
from djepa.files import atomic_file
from djepa.modality import Modality, require_file
from djepa.tokens import Axis, Sample


class Curve(Modality):
    name = "curve"
    axes = (Axis("t", "s", "rate"),)
    extensions = ("curve", "rough")
    required_meta = ("rate",)
    sheet_extension = "txt"

    def load(self, path):
        try:
            stored = json.loads(require_file(path).read_text(encoding="utf-8"))
            data = torch.tensor(stored["data"], dtype=torch.float32).reshape(1, -1)
            if data.shape[1] != stored["length"] or not bool(data.isfinite().all()):
                raise ValueError("its length is not what it says")
            return Sample(data, stored["meta"], self.name)
        except (ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
            raise MediaError(f"{str(path)!r} is no curve, or damaged: {error}") from error

    def save(self, sample, path):
        digits = 2 if self.check_extension(path) == "rough" else 9
        numbers = [round(number, digits) for number in sample.data.flatten().tolist()]
        try:
            text = json.dumps({"length": len(numbers), "meta": sample.meta, "data": numbers})
        except TypeError as error:
            raise UsageError(f"The metadata cannot be written: {error}") from error
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    def example(self, seed):
        phases = torch.rand(3, 1, generator=torch.Generator().manual_seed(seed))
        waves = torch.sin(torch.arange(32) * torch.tensor([[0.1], [0.3], [0.5]]) + 6.3 * phases)
        return Sample((waves.mean(0) * 0.9)[None], {"rate": 8.0}, self.name)

    def sheet(self, samples, path, columns=None):
        if path.suffix != ".txt":
            raise UsageError(f"{path} should end in .txt")
        with atomic_file(path) as temporary:
            temporary.write_text("\n".join(str(sample.data.tolist()) for sample in samples))
        return path

    def default_tokenizer(self):
        return {"kind": "patchify", "patch": {"t": 4}}

    def preview(self, sample):
        return {"text/html": f"<p>{sample.shape}</p>", "image/png": base64.b64encode(b"no picture").decode()}


class Curves(Dataset):
    """Examples, upright or upside down, in two classes."""

    def __init__(self, *, length: int = 6) -> None:
        self.length = length

    def __len__(self):
        return self.length

    def load(self, index, rng=None):
        return self.view(index, drawn_view(rng, 2))

    def num_views(self):
        return 2

    def view(self, index, number):
        sample = Curve().example(index)
        return Example({"curve": Sample(sample.data * (-1) ** number, sample.meta, "curve")}, {"label": "ab"[index % 2]})

    def classes(self):
        return {"label": ["a", "b"]}
