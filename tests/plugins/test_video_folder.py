"""A folder of real video files as a dataset."""

import multiprocessing
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import djepa
from djepa.errors import MediaError, UsageError
from djepa.loading import Workers
from djepa.tokens import Sample
from djepa.train.data import KeyedExamples
from djepa_video import clips
from djepa_video.folder import EXTENSIONS, VideoFolder
from djepa_video.modality import Video
from djepa_video.reading import probe

RAW = {"size": (48, 128), "flip": False, "num_frames": 5}  # frames as they are, so that their numbers can be read off them


def video(dataset, index=0, rng=None):
    return dataset.load(index, rng).samples["video"].data


def numbers(videos, data):
    return videos.numbers(((data + 1) * 127.5).round().permute(1, 2, 3, 0).numpy())


def ramp(path, num_frames=3, height=32, width=64):
    """Brightness grows from left to right: what is cropped or mirrored can be read off it."""
    data = torch.linspace(-1, 1, width).expand(1, num_frames, height, width)
    return Video().save(Sample(data, {"fps": 8}, "video"), path)


def test_sub_folders_are_classes_and_every_kind_of_file_is_found(tmp_path, videos):
    for extension, codec in {"mp4": "libx264", "MOV": "libx264", "mkv": "libx264", "avi": "mpeg4", "webm": "libvpx"}.items():
        videos.write(tmp_path / "waves" / f"a.{extension}", codec, num_frames=8)
    for extension in "gif", "webp":
        ramp(tmp_path / "ramps" / "deep" / f"a.{extension}", num_frames=8)
    for name in ("waves/.hidden.mp4", "waves/.folder/a.mp4", ".git/a.mp4", "beside.mp4", "waves/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no video")
    dataset = VideoFolder(root=str(tmp_path), size=16, num_frames=4)
    assert len(dataset) == 7 and dataset.classes() == {"label": ["ramps", "waves"]}
    assert [dataset.load(index).conditions["label"] for index in range(7)] == ["ramps"] * 2 + ["waves"] * 5
    assert [video(dataset, index).shape for index in range(7)] == [(3, 4, 16, 16)] * 7
    assert {dataset.load(index).samples["video"].meta["fps"] for index in range(7)} == {8.0, 25.0}


def test_without_sub_folders_there_is_no_condition(tmp_path):
    ramp(tmp_path / "b.gif")
    ramp(tmp_path / "a.gif")
    dataset = VideoFolder(root=str(tmp_path), size=(4, 6), num_frames=2, channels=1)
    assert (len(dataset), dataset.classes(), dataset.load(0).conditions) == (2, {}, {})
    assert video(dataset).shape == (1, 2, 4, 6)


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        VideoFolder(root=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no videos"):
        VideoFolder(root=str(tmp_path))


@pytest.mark.parametrize("options", [
    {"size": 0}, {"size": (4, 4, 4)}, {"size": (4, -1)}, {"size": 2.5}, {"channels": 2}, {"crop": "middle"}, {"clip": "first"},
    {"short": "pad"}, {"decoder": "opencv"}, {"num_frames": 0}, {"num_frames": 2.5}, {"fps": 0}, {"fps": float("nan")},
])
def test_settings_that_cannot_be_are_refused(tmp_path, options):
    ramp(tmp_path / "a.gif")
    with pytest.raises(UsageError, match=next(iter(options))):
        VideoFolder(root=str(tmp_path), **options)


# ---- which frames

@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_without_a_generator_the_middle_is_shown(tmp_path, videos, decoder):
    videos.write(tmp_path / "a.mp4", num_frames=41)
    own = VideoFolder(root=str(tmp_path), decoder=decoder, **RAW)
    assert numbers(videos, video(own)) == [18, 19, 20, 21, 22]
    slower = VideoFolder(root=str(tmp_path), fps=5, decoder=decoder, **RAW)
    assert numbers(videos, video(slower)) == [8, 13, 18, 23, 28]
    assert (own.load(0).samples["video"].meta, slower.load(0).samples["video"].meta) == ({"fps": 25.0}, {"fps": 5.0})


@pytest.mark.parametrize(("fps", "step"), [(None, 1), (25, 1), (12.5, 2), (50, 0.5)])
@pytest.mark.parametrize("num_frames", [40, 41])
def test_every_part_of_a_file_comes_up(tmp_path, videos, fps, step, num_frames):
    found = probe(videos.write(tmp_path / "a.mp4", num_frames=num_frames))
    options = VideoFolder(root=str(tmp_path), fps=fps, **RAW).options
    shown = [clips.part(found, options, start) for start in np.random.default_rng(0).random(1000)]
    for clip in shown:
        assert clip == [clip[0] + int(number * step) for number in range(5)]
    lasts = num_frames - 5 * step  # the clip that begins there ends with the file
    assert {clip[0] for clip in shown} >= set(range(int(lasts) + 1)) and max(clip[0] for clip in shown) <= lasts + 0.5


def test_draws_come_from_the_generator_alone(tmp_path, videos):
    videos.write(tmp_path / "a.mp4")
    dataset = VideoFolder(root=str(tmp_path), size=(48, 64), num_frames=3, crop="random")
    for seed in range(4):
        assert torch.equal(*(video(dataset, 0, np.random.default_rng(seed)) for _ in range(2)))


def test_of_a_file_with_a_varying_rate_frames_are_shown_at_their_times(tmp_path, videos):
    times = [0, 40, 80, 500, 520, 1000, 1040, 2000]
    videos.write(tmp_path / "a.mkv", num_frames=8, times=times, bframes="0")
    dataset = VideoFolder(root=str(tmp_path), fps=2, **{**RAW, "num_frames": 4})
    assert numbers(videos, video(dataset)) == [0, 3, 5, 6]  # 1.5 s is nearer to 1.04 than to 2


class Timed(clips.Clip):
    """A clip of which nothing but the times matters."""

    def _decode(self, numbers, grey):
        raise NotImplementedError


@given(count=st.integers(1, 300), fps=st.sampled_from([8.0, 24000 / 1001, 25.0, 29.97, 60.0]), wanted=st.integers(1, 40),
       asked=st.none() | st.floats(0.5, 120), start=st.floats(0, 1))
def test_a_clip_lies_within_its_file(count, fps, wanted, asked, start):
    found = Timed(Path("a.mp4"), np.arange(count) / fps, count / fps, fps, (1, 1), 3, {})
    options = clips.ClipOptions(8, wanted, asked, 3, True, "center", "random", "error", "pyav")
    needed = wanted / (asked or fps)
    if needed > (count + 0.5001) / fps:
        with pytest.raises(MediaError, match="too short"):
            clips.part(found, options, start)
    elif needed < (count + 0.4999) / fps:
        frames = clips.part(found, options, start)
        assert len(frames) == wanted and frames == sorted(frames) and frames[0] >= 0 and frames[-1] < count
        steps = np.diff(frames)
        assert np.all(np.abs(steps - fps / (asked or fps)) <= 1 + 1e-6) or frames[-1] == count - 1
        assert not asked or abs(asked - fps) > 1e-3 or set(steps) <= {1}


def test_short_files_are_refused_or_start_again(tmp_path, videos):
    videos.write(tmp_path / "brief.mp4", num_frames=4)
    for fps in None, 25:
        with pytest.raises(MediaError, match=r"brief\.mp4.*4 frames in 0\.16 s.*takes 6 frames"):
            VideoFolder(root=str(tmp_path), **{**RAW, "num_frames": 6}, fps=fps).load(0)
        looped = VideoFolder(root=str(tmp_path), **{**RAW, "num_frames": 6}, fps=fps, short="loop")
        assert numbers(videos, video(looped)) == [0, 1, 2, 3, 0, 1]
    slow = VideoFolder(root=str(tmp_path), **{**RAW, "num_frames": 4}, fps=12.5, short="loop")
    assert numbers(videos, video(slow, 0, np.random.default_rng(0))) == [0, 2, 0, 2]


def test_damage_matters_where_it_is_shown(tmp_path, videos):
    path = videos.write(tmp_path / "a.mp4", x264_params="keyint=8:scenecut=0:bframes=0")
    assert numbers(videos, video(VideoFolder(root=str(tmp_path), **RAW))) == [18, 19, 20, 21, 22]
    content = bytearray(path.read_bytes())
    last = probe(path).num_frames  # all is well before: 40 frames, the last 8 of which are spoilt now
    place = content.index(b"mdat") + int((content.index(b"moov") - content.index(b"mdat")) * 0.95)
    content[place:place + 40] = bytes(40)
    path.write_bytes(content)
    assert last == 40
    assert numbers(videos, video(VideoFolder(root=str(tmp_path), **RAW))) == [18, 19, 20, 21, 22]
    with pytest.raises(MediaError, match=r"a\.mp4"):
        VideoFolder(root=str(tmp_path), **{**RAW, "num_frames": 40}).load(0)


def test_a_file_that_is_gone_is_named(tmp_path):
    path = ramp(tmp_path / "cats" / "a.gif")
    dataset = VideoFolder(root=str(tmp_path))
    path.unlink()
    for use in (lambda: dataset.load(0), dataset.fingerprint):
        with pytest.raises(MediaError, match=r"a\.gif"):
            use()


# ---- how they are shown

def test_frames_are_cropped_to_their_middle(tmp_path):
    ramp(tmp_path / "a.gif")
    for crop in "center", "random":
        data = video(VideoFolder(root=str(tmp_path), size=32, num_frames=3, channels=1, crop=crop, flip=True))
        torch.testing.assert_close(data, torch.linspace(-1, 1, 64)[16:48].expand(1, 3, 32, 32), rtol=0, atol=0.01)


def test_random_crops_reach_both_ends_and_stay_for_a_whole_clip(tmp_path):
    ramp(tmp_path / "a.gif", width=96)
    dataset = VideoFolder(root=str(tmp_path), size=32, num_frames=3, channels=1, crop="random", flip=False)
    rng = np.random.default_rng(0)
    shown = [video(dataset, 0, rng) for _ in range(60)]
    assert all(torch.equal(data[:, 0], data[:, 2]) for data in shown)
    lefts = [data[0, 0, 0, 0].item() for data in shown]
    assert min(lefts) < -0.9 and max(lefts) > 0.25  # the last possible left edge is two thirds along: 0.33


def test_half_of_the_clips_are_mirrored(tmp_path):
    ramp(tmp_path / "a.gif", width=32)
    mirrored, plain = (VideoFolder(root=str(tmp_path), size=16, num_frames=3, channels=1, flip=flip) for flip in (True, False))
    straight, rng = video(plain), np.random.default_rng(0)
    shown = [video(mirrored, 0, rng) for _ in range(100)]
    assert 30 < sum(torch.equal(data, straight.flip(-1)) for data in shown) < 70
    assert all(torch.equal(data, straight) or torch.equal(data, straight.flip(-1)) for data in shown)
    assert all(torch.equal(video(plain, 0, rng), straight) for _ in range(10))


def test_shrinking_does_not_alias(tmp_path):
    stripes = torch.ones(1, 2, 64, 64)
    stripes[..., ::2] = -1
    Video().save(Sample(stripes, {"fps": 8}, "video"), tmp_path / "a.webp")
    assert video(VideoFolder(root=str(tmp_path), size=15, num_frames=2, channels=1)).abs().max() < 0.15


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_any_frame_covers_any_size(height, width, out_height, out_width, place):
    colour = torch.tensor([200, 100, 0], dtype=torch.uint8)
    data = clips.cover(colour.expand(2, height, width, 3), (out_height, out_width), place)
    expected = (colour / 127.5 - 1)[:, None, None, None].expand(3, 2, out_height, out_width)
    torch.testing.assert_close(data, expected, rtol=0, atol=1e-5)
    assert data.is_contiguous()


def test_views_are_what_a_generator_can_show(tmp_path, videos):
    videos.write(tmp_path / "a.mp4")
    dataset = VideoFolder(root=str(tmp_path), clip="center", **{**RAW, "flip": True})
    assert dataset.num_views() == 2
    views = [dataset.view(0, number).samples["video"].data for number in range(2)]
    assert torch.equal(views[0], video(dataset)) and torch.equal(views[1], views[0].flip(-1))
    shown = [video(dataset, 0, np.random.default_rng(seed)) for seed in range(8)]
    assert {[torch.equal(data, view) for view in views].index(True) for data in shown} == {0, 1}
    assert VideoFolder(root=str(tmp_path), clip="center", **RAW).num_views() == 1
    assert VideoFolder(root=str(tmp_path), **RAW).num_views() is None
    assert VideoFolder(root=str(tmp_path), clip="center", crop="random", **RAW).num_views() is None


def test_fingerprints_tell_files_apart(tmp_path):
    ramp(tmp_path / "a.gif")
    first = VideoFolder(root=str(tmp_path)).fingerprint()
    assert first == VideoFolder(root=str(tmp_path)).fingerprint()
    ramp(tmp_path / "a.gif", num_frames=4)
    assert first != VideoFolder(root=str(tmp_path)).fingerprint()


# ---- other processes, training

@pytest.fixture(scope="module")
def corpus(tmp_path_factory, videos):
    root = tmp_path_factory.mktemp("corpus")
    for name, codec in {"a/1.mp4": "libx264", "a/2.avi": "mpeg4", "b/1.webm": "libvpx", "b/2.mkv": "libx264"}.items():
        videos.write(root / name, codec, num_frames=24)
    ramp(root / "b" / "3.gif", num_frames=24)
    return root


@pytest.mark.parametrize(("context", "decoder"), [("fork", "pyav"), ("fork", "decord"), ("spawn", "pyav")])
def test_workers_show_the_same_clips(corpus, context, decoder):
    if context not in multiprocessing.get_all_start_methods() or (context == "fork" and sys.version_info >= (3, 12)):
        pytest.skip("Python warns of forking where there are threads")
    dataset = VideoFolder(root=str(corpus), size=24, num_frames=6, crop="random", decoder=decoder)
    read, places = KeyedExamples(seed=3), [(epoch, index) for epoch in range(2) for index in range(5)]
    here = [read(dataset, place).samples["video"].data for place in places]  # decoders are used before processes are made
    workers = Workers(dataset, read, 2, on_lost=lambda index, reason: pytest.fail(reason), method=context)
    there = [example.samples["video"].data for example, in workers.run([place] for place in places)]
    workers.close()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(here, there, strict=True))


def test_datasets_pickle(corpus):
    dataset = pickle.loads(pickle.dumps(VideoFolder(root=str(corpus), num_frames=4)))
    assert torch.equal(video(dataset, 3), video(VideoFolder(root=str(corpus), num_frames=4), 3))


TINY = ["data.size=16", "data.num_frames=4", "model.width=48", "model.num_heads=2", "model.encoder_depth=1",
        "model.predictor_depth=1", "model.streams.video.head.depth=1", "model.streams.video.head.width=32",
        "model.generate.num_steps=2", "model.generate.num_denoising_steps=2", "train.steps=2", "train.batch_size=4",
        "train.micro_batch_size=2", "train.precision=float32", "preview.every=2", "preview.num_samples=1"]


def test_a_model_of_a_folder_is_trained_and_generates(corpus, tmp_path):
    recipe = djepa.Recipe.load("video/folder", [f"data.root={corpus}", "data.fps=25", "train.num_workers=1", *TINY])
    djepa.Trainer(recipe).fit(tmp_path / "run")
    sheets = list((tmp_path / "run" / "samples").glob("*.mp4"))
    assert sheets and all(Video().load(sheet).data.shape[1] == 4 for sheet in sheets)
    sample, = djepa.Pipeline.from_pretrained(tmp_path / "run").generate("b", seed=0)
    assert sample.data.shape == (3, 4, 16, 16) and sample.meta["fps"] == 25.0
    assert Video().load(sample.save(tmp_path / "b.webp")).meta["condition"] == sample.meta["condition"]


def test_extensions_are_lower_case_and_pictures_are_not_among_them(tmp_path):
    assert all(extension == extension.lower() for extension in EXTENSIONS)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="no videos"):
        VideoFolder(root=str(tmp_path))
