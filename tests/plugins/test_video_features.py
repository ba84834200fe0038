"""Features of clips: statistics with known values, and small networks with drawn weights."""

import pytest
import torch

from djepa.errors import UsageError
from djepa.random import seeded
from djepa.tokens import Sample
from djepa_video.features import FrameStatistics, VideoEncoder, spread_frames
from djepa_video.modality import Video


def clip(data):
    return Sample(data, {"fps": 8.0}, "video")


def test_statistics_tell_looks_from_motion():
    still = torch.zeros(1, 4, 4, 4)
    still[:, :, :2] = 1.0
    moving = still.clone()
    moving[:, ::2] = still.flip(2)[:, ::2]  # upside down in every second frame
    found = FrameStatistics(size=2).extract([clip(still), clip(moving)]).vectors.unflatten(1, (3, 2, 2))
    assert found[0].tolist() == [[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    assert found[1].tolist() == [[[0.5] * 2] * 2, [[0.5] * 2] * 2, [[1.0] * 2] * 2]


def test_statistics_bear_any_length_and_size_and_are_the_videos_own():
    extractor = FrameStatistics()
    mixed = [clip(torch.rand(3, frames, *size, generator=torch.Generator().manual_seed(frames)) * 2 - 1)
             for frames, size in ((1, (9, 17)), (5, (8, 8)), (12, (30, 20)))]
    found = extractor.extract(mixed).vectors
    assert found.shape == (3, 3 * 3 * 64) and not found[0, 3 * 64 :].any()
    assert Video().default_features() == {"kind": "frame-statistics"}
    with pytest.raises(UsageError, match="as many channels"):
        extractor.extract([*mixed, clip(torch.zeros(1, 2, 8, 8))])


def test_frames_are_spread_evenly():
    frames = torch.arange(9.0).view(1, 9, 1, 1)
    assert spread_frames(frames, 3).flatten().tolist() == [0, 4, 8]
    assert spread_frames(frames[:, :2], 4).flatten().tolist() == [0, 0, 1, 1]
    assert torch.equal(spread_frames(frames, 9), frames)


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20, "image_size": 16,
         "patch_size": 4}


def saved(folder, network, name, **options):
    import transformers

    network.eval().save_pretrained(folder)
    size = {"height": 16, "width": 16} if name == "ViTImageProcessor" else {"shortest_edge": 16}
    getattr(transformers, name)(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, **options).save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def test_a_network_for_pictures_is_averaged_over_frames(tmp_path):
    import transformers

    with seeded(0, "network"):
        network = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL))
    source = saved(tmp_path, network, "ViTImageProcessor")
    sample = Video().example(0)
    frames = sample.data.transpose(0, 1)
    each = network(pixel_values=frames).pooler_output
    torch.testing.assert_close(VideoEncoder(source=source).extract([sample]).vectors, each.mean(0)[None], rtol=1e-4, atol=1e-4)
    ends = VideoEncoder(source=source, num_frames=2).extract([sample]).vectors
    torch.testing.assert_close(ends, each[[0, -1]].mean(0)[None], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_network_for_clips_sees_the_frames_it_was_trained_on(tmp_path):
    import transformers

    config = transformers.VideoMAEConfig(**SMALL, num_frames=4, tubelet_size=2, num_labels=3)
    with seeded(0, "network"):
        network = transformers.VideoMAEForVideoClassification(config)
    source = saved(tmp_path, network, "VideoMAEImageProcessor", crop_size={"height": 16, "width": 16})
    samples = [Video().example(seed) for seed in range(2)]
    found = VideoEncoder(source=source).extract(samples)
    inputs = torch.stack([spread_frames(sample.data, 4).transpose(0, 1) for sample in samples])
    torch.testing.assert_close(found.logits, network(pixel_values=inputs).logits, rtol=1e-4, atol=1e-4)
    assert found.vectors.shape == (2, 16)
