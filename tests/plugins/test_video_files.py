"""Video files: the very frames asked for, or an error; and back."""

import gc
import io
import json
import os
import struct
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from djepa.errors import MediaError, StorageError, UsageError
from djepa_video import clip, container, decord_frames, note, writing
from djepa_video.reading import frames_of, probe, read
from djepa_video.writing import encode, write

KINDS = {  # file name: how it is written
    "closed.mp4": {"x264_params": "keyint=12:bframes=3"},
    "one-key.mkv": {},
    "open.mp4": {"x264_params": "keyint=10:bframes=3:open-gop=1"},
    "refresh.mp4": {"x264_params": "keyint=8:intra-refresh=1:bframes=0"},
    "intra.mov": {"x264_params": "keyint=1"},
    "stream.ts": {"x264_params": "keyint=12"},
    "fragments.mp4": {"x264_params": "keyint=12", "container": {"movflags": "frag_keyframe+empty_moov"}},
    "b-frames.avi": {"x264_params": "keyint=12"},
    "hevc.mp4": {"codec": "libx265", "x265_params": "log-level=none:keyint=12:pools=none:frame-threads=1"},
    "av1.mp4": {"codec": "libsvtav1", "preset": "12", "num_frames": 20, "svtav1_params": "lp=1"},
    "vp9.webm": {"codec": "libvpx-vp9", "cpu_used": "8", "deadline": "good", "g": "12", "lag_in_frames": "8",
                 "auto_alt_ref": "1"},
    "vp8.webm": {"codec": "libvpx", "cpu_used": "8", "deadline": "good", "g": "12", "b": "2000000"},
    "mpeg4.avi": {"codec": "mpeg4", "b": "4000000"},
    "mpeg4-b.avi": {"codec": "mpeg4", "b": "4000000", "bf": "2"},
    "mpeg4-b.mp4": {"codec": "mpeg4", "b": "4000000", "bf": "2"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mpeg2.mpg": {"codec": "mpeg2video", "b": "4000000", "bf": "2"},
    "ffv1.mkv": {"codec": "ffv1"},
}
SAFE_FOR_DECORD = {"closed.mp4", "one-key.mkv", "intra.mov", "fragments.mp4", "vp9.webm", "vp8.webm"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory, videos):
    return videos.write(tmp_path_factory.mktemp("kinds") / request.param, **KINDS[request.param])


def selections(count, seed=0, trials=8):
    """Some frames in a row, some far apart, some in any order."""
    rng = np.random.default_rng(seed)
    for trial in range(trials):
        begin, step = int(rng.integers(0, count - 6)), int(rng.integers(1, 6))
        yield [list(range(begin, begin + 6)), list(range(0, count, step)), rng.integers(0, count, 5).tolist()][trial % 3]


# ---- the frames asked for

def test_every_frame_is_the_one_asked_for(kind, videos):
    found = probe(kind)
    count = KINDS[kind.name].get("num_frames", 40)
    assert (found.num_frames, found.height, found.width, found.channels) == (count, 48, 128, 3)
    assert found.fps == 25 and found.duration == pytest.approx(count / 25)
    np.testing.assert_allclose(found.times, np.arange(count) / 25, atol=1e-9)
    assert videos.numbers(found.frames()) == list(range(count))
    for wanted in selections(count):
        assert videos.numbers(found.frames(wanted)) == wanted


def test_decord_finds_the_same_frames_or_is_not_asked(kind):
    pytest.importorskip("decord")
    found = probe(kind)
    for wanted in selections(found.num_frames, seed=1, trials=6):
        frames = decord_frames.read(found, wanted)
        assert (frames is not None) == (kind.name in SAFE_FOR_DECORD)
        assert frames is None or torch.equal(frames, found.frames(wanted))
        assert torch.equal(frames_of(found, wanted, 3, "decord"), found.frames(wanted))


def test_without_decord_others_decode(tmp_path, videos, monkeypatch):
    found = probe(videos.write(tmp_path / "a.mp4", num_frames=8))
    monkeypatch.setitem(sys.modules, "decord", None)
    assert decord_frames.read(found, [3]) is None
    assert videos.numbers(frames_of(found, [3, 5], 3, "decord")) == [3, 5]


def test_packed_b_frames_are_counted(tmp_path, videos):
    """DivX puts two frames into one chunk of an AVI and nothing into the next."""
    plain = videos.write(tmp_path / "plain.avi", "mpeg4", b="4000000", bf="1", b_strategy="0")
    frame, user_data = b"\0\0\1\xb6", b"\0\0\1\xb2"

    def kind_of(data):
        return "IPBS"[data[data.find(frame) + 4] >> 6]

    with av.open(str(plain)) as source, av.open(str(tmp_path / "packed.avi"), "w") as target:
        stream = source.streams.video[0]
        chunks = [bytes(packet) for packet in source.demux(stream) if packet.size]
        start = chunks[0].find(b"\0\0\1\xb3")
        chunks[0] = chunks[0][:start] + user_data + b"DivX503b1393p" + chunks[0][start:]
        packed, index = [], 0
        while index < len(chunks):
            together = index and index + 1 < len(chunks) and kind_of(chunks[index + 1]) == "B"
            packed += [chunks[index] + chunks[index + 1], frame + b"\x51\x05\x80"] if together else [chunks[index]]
            index += 2 if together else 1
        copy = target.add_stream_from_template(stream)
        for index, data in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = copy, index, index, kind_of(data) == "I"
            packet.time_base = stream.time_base
            target.mux(packet)
    found = probe(tmp_path / "packed.avi")
    assert videos.numbers(found.frames()) == list(range(40))
    for wanted in selections(40):
        assert videos.numbers(found.frames(wanted)) == wanted


def test_frames_cut_off_by_an_edit_list_do_not_count(tmp_path, videos):
    whole = videos.write(tmp_path / "whole.mp4", x264_params="keyint=12")
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mp4"), "w", options=options) as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        shift = 5 * int(1 / (25 * stream.time_base))
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream, packet.pts, packet.dts = copy, packet.pts - shift, packet.dts - shift
                target.mux(packet)
    found = probe(tmp_path / "cut.mp4")
    assert found.num_frames == 35 and videos.numbers(found.frames([0, 1, 20, 34])) == [5, 6, 25, 39]
    assert frames_of(found, [0, 20], 3, "decord").equal(found.frames([0, 20]))


def test_a_stream_that_begins_between_key_frames_begins_at_the_first(tmp_path, videos):
    whole = videos.write(tmp_path / "whole.ts", x264_params="keyint=12:scenecut=0").read_bytes()
    with av.open(str(tmp_path / "whole.ts")) as source:
        second = [packet.pos for packet in source.demux(video=0) if packet.size][3]
    (tmp_path / "cut.ts").write_bytes(whole[second // 188 * 188:])
    found = probe(tmp_path / "cut.ts")
    assert videos.numbers(found.frames())[0] == 12 and videos.numbers(found.frames([5, 3])) == [17, 15]


def test_variable_frame_rates_go_by_the_time(tmp_path, videos):
    times = [0, 40, 80, 500, 520, 1000, 1040, 2000]
    found = probe(videos.write(tmp_path / "a.mkv", num_frames=8, times=times, bframes="0"))
    np.testing.assert_allclose(found.times * 1000, times)
    assert found.fps == pytest.approx(3.5)
    near = found.nearest(np.array([-1.0, 0.0, 0.019, 0.021, 0.3, 0.51, 0.511, 1.5, 1.53, 9.0]))
    assert near == [0, 0, 0, 1, 3, 3, 4, 6, 7, 7]


class Timed(clip.Clip):
    """A clip of which nothing but the times matters."""

    def _decode(self, numbers, grey):
        raise NotImplementedError


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.lists(st.floats(-1, 20), min_size=1, max_size=10))
def test_no_frame_is_nearer_than_the_nearest(gaps, wanted):
    times = np.cumsum([0, *gaps]) / 1000
    found = Timed(Path("a.mp4"), times, 1.0, 1.0, (1, 1), 3, {})
    distances = np.abs(times[None] - np.array(wanted)[:, None])
    chosen = np.take_along_axis(distances, np.array(found.nearest(np.array(wanted)))[:, None], 1)[:, 0]
    assert np.all(chosen <= distances.min(1) + 2 * clip.TIE)


def test_grey_is_grey_and_colour_can_be_made_so(tmp_path, videos):
    colour = probe(videos.write(tmp_path / "a.mp4", num_frames=3))
    grey = probe(videos.write(tmp_path / "b.mkv", "ffv1", num_frames=3, pix_fmt="gray"))
    assert (colour.channels, grey.channels) == (3, 1)
    assert colour.frames().shape == (3, 48, 128, 3) and grey.frames().shape == (3, 48, 128, 1)
    assert grey.frames(channels=3).shape == (3, 48, 128, 3)
    luma = colour.frames().double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    assert (colour.frames(channels=1)[..., 0] - luma).abs().mean() < 2


@pytest.mark.parametrize(("matrix", "turned"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_videos_that_lie_on_their_side_are_stood_up(tmp_path, videos, matrix, turned):
    upright = videos.write(tmp_path / "a.mp4", num_frames=2)
    content = bytearray(upright.read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    content[place:place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "b.mp4").write_bytes(content)
    expected = torch.rot90(probe(upright).frames(), turned, (1, 2))
    assert torch.equal(probe(tmp_path / "b.mp4").frames(), expected)
    assert torch.equal(frames_of(probe(tmp_path / "b.mp4"), [0, 1], 3, "decord"), expected)


@pytest.mark.parametrize("name", ["clip:1.mp4", "concat:a|b.mp4", "100%.mp4", "frame%03d.mp4", "a ü.mp4", "wrong.avi", "none"])
def test_names_do_not_matter(tmp_path, videos, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    videos.write(tmp_path / "a.mp4", num_frames=3).rename(tmp_path / name)
    assert videos.numbers(probe(Path(name)).frames()) == [0, 1, 2]


# ---- what is no (whole) video

def truncated(path, part):
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * part)])
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.gif", "a.webp"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_files_cut_short_are_refused(tmp_path, videos, name, part):
    if name.endswith(("gif", "webp")):
        path = write(torch.rand(3, 9, 16, 16), tmp_path / name, name[2:], {"fps": 8})
    else:
        path = videos.write(tmp_path / name, *(["mpeg4"] if name == "a.avi" else []))
    with pytest.raises(MediaError, match=name):
        probe(truncated(path, part)).frames()


@pytest.mark.parametrize("keep", [20, 37])
def test_a_cut_between_two_frames_is_noticed(tmp_path, videos, keep):
    path = videos.write(tmp_path / "a.mp4", container={"movflags": "faststart"}, bframes="0")
    with av.open(str(path)) as file:
        end = [packet.pos + packet.size for packet in file.demux(video=0) if packet.size][keep]
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(MediaError, match=r"a\.mp4.*cut short"):
        probe(path)


def test_frames_that_a_container_counts_and_does_not_hold_are_never_others(tmp_path, videos):
    path = videos.write(tmp_path / "a.mp4", x264_params="keyint=60:scenecut=0:bframes=0")
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        places = [packet.pos for packet in file.demux(video=0) if packet.size]
    for place in places[25:]:
        content[place + 4] = 12  # filler: a unit that any decoder accepts and that holds no picture
    path.write_bytes(content)
    found = probe(path)
    assert found.num_frames == 40  # all that can be told without decoding
    assert videos.numbers(found.frames([3, 24])) == [3, 24]
    for wanted in ([25], [39], [24, 25, 39]):
        with pytest.raises(MediaError, match=r"a\.mp4.*damaged"):
            found.frames(wanted)


@pytest.mark.parametrize("name", ["closed.mp4", "one-key.mkv", "open.mp4", "mpeg4-b.avi", "mpeg2.mpg"])
def test_damage_is_refused_or_does_not_show(tmp_path, videos, name):
    path = videos.write(tmp_path / name, **KINDS[name])
    original, sound = path.read_bytes(), probe(path).frames().int()
    refused = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        content = bytearray(original)
        for _ in range(4):  # bursts, such as a bad sector or a broken transfer makes
            place = int(rng.integers(len(content) // 10, len(content) - 300))
            content[place:place + 200] = rng.bytes(200)
        path.write_bytes(content)
        try:
            found = probe(path)
            frames = found.frames(range(min(20, found.num_frames))).int()
        except MediaError as error:
            assert name in str(error)
            refused += 1
        else:
            assert found.num_frames != 40 or (frames - sound[:20]).abs().float().mean((1, 2, 3)).max() < 2
    assert refused > 0


@pytest.mark.parametrize("content", [
    b"This is a text, whatever its name says.\n" * 50,
    b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile a.ts\n",
    b"\0" * 4096,
    b"RIFF\xff\0\0\0WEBPVP8 ",
    b"GIF89a\1\0\1\0\0\0\0;",
    b"G",
])
def test_what_is_no_video_is_refused(tmp_path, videos, content):
    videos.write(tmp_path / "a.ts", num_frames=3)
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        probe(path).frames()


def test_missing_empty_and_other_things_are_refused(tmp_path, videos):
    (tmp_path / "empty.mp4").touch()
    Image.new("RGB", (9, 9)).save(tmp_path / "picture.png")
    reasons = {"gone.mp4": "No such file", "empty.mp4": "0 bytes", ".": "Not a file", "picture.png": "no video"}
    for name, what in reasons.items():
        with pytest.raises(MediaError, match=what):
            probe(tmp_path / name)
    with pytest.raises(MediaError, match=r"holds no video.*audio"):
        probe(videos.sound(tmp_path / "sound.mp4"))


def test_the_cover_of_a_sound_is_no_video(tmp_path, videos):
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "JPEG")
    with av.open(str(videos.sound(tmp_path / "sound.mp4"))) as source, av.open(str(tmp_path / "song.mp4"), "w") as target:
        sound = target.add_stream_from_template(source.streams.audio[0])
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        target.start_encoding()
        packet = av.Packet(picture.getvalue())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        target.mux(packet)
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = sound
                target.mux(packet)
    with pytest.raises(MediaError, match="holds no video"):
        probe(tmp_path / "song.mp4")


def test_too_much_is_refused_before_it_is_decoded(tmp_path, videos, monkeypatch):
    huge = tmp_path / "huge.gif"
    canvas, frame = struct.pack("<HHBBB", 60000, 60000, 0, 0, 0), struct.pack("<HHHHB", 0, 0, 60000, 60000, 0)
    huge.write_bytes(b"GIF89a" + canvas + b"," + frame + b"\2\1\0\0;")
    with pytest.raises(MediaError, match=r"huge\.gif.*too large"):
        probe(huge)
    found = probe(videos.write(tmp_path / "a.mp4"))
    monkeypatch.setattr(clip, "MAX_CLIP_PIXELS", 48 * 128 * 20)
    monkeypatch.setattr(container, "_opened", lambda path: pytest.fail("opened"))
    with pytest.raises(MediaError, match=r"a\.mp4.*too long"):
        found.frames()


# ---- memory and files

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("name", ["pyav", "decord", "gif", "broken"])
def test_memory_files_and_threads_stay_as_they_are(tmp_path, videos, name):
    if name == "gif":
        path = write(torch.rand(1, 6, 48, 128), tmp_path / "a.gif", "gif", {"fps": 8})
    else:
        path = videos.write(tmp_path / "a.mp4", num_frames=12, bframes="0")
    found = probe(path)
    if name == "broken":
        path.write_bytes(path.read_bytes().replace(b"mdat", b"mdat" + b"\0" * 64))

    def read_on(times):
        for _ in range(times):
            if name == "broken":
                with pytest.raises(MediaError):
                    found.frames([2, 5])
            else:
                assert len(frames_of(probe(path), [2, 5], None, "decord" if name == "decord" else "pyav")) == 2

    read_on(100)
    before = resident(), len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))
    read_on(400)
    after = resident(), len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))
    assert after[0] - before[0] < 8 * 2**20
    assert after[1:] == before[1:]


# ---- writing

META = {"seed": 3, "condition": {"label": "café"}, "settings": [1, 2.5, None]}


def smooth(channels=3, num_frames=5, height=32, width=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 3, 3, 4, generator=generator) * 1.6 - 0.8
    fine = torch.nn.functional.interpolate(coarse, (num_frames, height, width), mode="trilinear")[0]
    return ((fine + 1) * 127.5).round() / 127.5 - 1


@settings(max_examples=25)
@given(channels=st.sampled_from([1, 3]), size=st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40)),
       fps=st.floats(0.01, 1000) | st.sampled_from([7.5, 24000 / 1001, 29.97, 8, 1000.0]), still=st.booleans(),
       extension=st.sampled_from(["mp4", "gif", "webp"]))
def test_what_is_written_is_read(tmp_path_factory, channels, size, fps, still, extension):
    num_frames, data = size[0], smooth(channels, *size)
    data = data[:, :1].expand(-1, num_frames, -1, -1) if still else data
    path = write(data, tmp_path_factory.mktemp("written") / f"a.{extension}", extension, {**META, "fps": fps})
    back, meta = read(path)
    assert meta == {**META, "fps": fps} and back.shape == data.shape
    error = (back - data).abs()
    if extension == "webp" or (extension, channels) == ("gif", 1):
        assert error.max() < 1e-6
    elif extension == "gif" or channels == 1:
        assert error.mean() < 0.03
    assert probe(path).duration == pytest.approx(num_frames / fps)


def test_an_mp4_looks_like_the_clip(tmp_path):
    data = smooth(3, 12, 64, 96)
    back, _ = read(write(data, tmp_path / "a.mp4", "mp4", {"fps": 8}))
    assert 10 * torch.log10(4 / (back - data).square().mean()) > 40  # dB; 41.7 is what 4:2:0 leaves of it


def test_an_mp4_is_what_players_show(tmp_path):
    write(smooth(3, 4, 31, 33), tmp_path / "a.mp4", "mp4", {"fps": 7.5})
    with av.open(str(tmp_path / "a.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width, stream.average_rate, stream.frames) == (32, 34, Fraction(15, 2), 4)
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (writing.BT601, writing.LIMITED)


@pytest.mark.parametrize("extension", ["gif", "webp"])
def test_animations_run_at_the_rate_of_the_clip_everywhere(tmp_path, extension):
    path = write(smooth(1, 30), tmp_path / f"a.{extension}", extension, {"fps": 12})
    with Image.open(path) as image:
        total = 0
        for number in range(image.n_frames):  # frames that are alike are one
            image.seek(number)
            image.load()
            total += image.info["duration"]
    assert total == 2500


def test_a_file_that_was_changed_elsewhere_is_believed_more_than_its_note(tmp_path):
    path = write(smooth(3, 8, 31, 33), tmp_path / "a.mp4", "mp4", {"fps": 8.0, "seed": 1})
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        target.metadata["comment"] = source.metadata["comment"]
        stream = target.add_stream("libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt = 16, 18, "yuv420p"
        for number, frame in enumerate(source.decode(video=0)):
            smaller = frame.reformat(18, 16)
            smaller.pts, smaller.time_base = number, Fraction(1, 16)
            target.mux(stream.encode(smaller))
        target.mux(stream.encode())
    data, meta = read(tmp_path / "b.mp4")
    assert (data.shape, meta) == ((3, 8, 16, 18), {"fps": 16.0, "seed": 1})


def test_animations_of_others_have_a_rate_too(tmp_path):
    pictures = [Image.fromarray(np.full((4, 6), 60 * number, np.uint8)) for number in range(4)]
    for name in "a.gif", "a.webp":
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=[100, 200, 50, 50], lossless=True)
        found = probe(tmp_path / name)
        assert (found.num_frames, found.fps, found.duration) == (4, 10.0, 0.4)
        np.testing.assert_allclose(found.times, [0, 0.1, 0.3, 0.35])
        assert found.frames([3, 1])[:, 0, 0].tolist() == [[180] * 3, [60] * 3]
    pictures[2].save(tmp_path / "still.gif")
    assert read(tmp_path / "still.gif")[1] == {"fps": 10.0}


@pytest.mark.parametrize(("change", "what"), [
    ({"data": torch.zeros(3, 4, 8)}, "clip is"), ({"data": torch.zeros(2, 4, 8, 8)}, "clip is"),
    ({"data": torch.zeros(3, 0, 8, 8)}, "clip is"), ({"data": torch.zeros(3, 4, 8, 8, dtype=torch.uint8)}, "clip is"),
    ({"data": torch.full((3, 4, 8, 8), float("nan"))}, "NaN"), ({"meta": {}}, "fps"), ({"meta": {"fps": 0}}, "fps"),
    ({"meta": {"fps": float("inf")}}, "fps"), ({"meta": {"fps": True}}, "fps"), ({"meta": {"fps": "8"}}, "fps"),
    ({"meta": {"fps": 8, "model": object()}}, "metadata"), ({"data": torch.zeros(1, 1, 1, 17000)}, "17000x1"),
])
@pytest.mark.parametrize("extension", ["mp4", "webp"])
def test_what_cannot_be_written_leaves_nothing(tmp_path, change, what, extension):
    data, meta = change.get("data", torch.zeros(3, 4, 8, 8)), change.get("meta", {"fps": 8})
    with pytest.raises(UsageError, match=what):
        write(data, tmp_path / f"a.{extension}", extension, meta)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"a\.mp4"):
        write(smooth(1, 2, 8, 8), tmp_path / "file" / "a.mp4", "mp4", {"fps": 8})


def test_values_out_of_range_are_clipped(tmp_path):
    data = torch.tensor([-9.0, 9.0])[:, None, None].expand(1, 2, 8, 8)
    assert read(write(data, tmp_path / "a.webp", "webp", {"fps": 8}))[0].flatten(2).mean(-1).tolist() == [[-1.0, 1.0]]


def test_metadata_of_any_length_fits_or_is_refused():
    meta = {"fps": 8, "prompt": "x" * 80_000}
    assert len(encode(smooth(1, 2), "mp4", meta)) > 80_000 and len(encode(smooth(1, 2), "gif", meta)) > 80_000
    with pytest.raises(UsageError, match="write an mp4"):
        encode(smooth(1, 2), "webp", meta)


KEYS = st.sampled_from(["djepa", "size", "channels", "num_frames", "fps"]) | st.text()
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.text() | st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)).map(json.dumps))
def test_notes_of_anyone_are_read(text):
    found = note.Note.parsed(text)
    assert found.rate(25.0) == 25.0 or found.fps == pytest.approx(25.0, rel=1e-2)
    assert found.crop(6, 8) == (6, 8) or note.padded(*found.size) == (6, 8)
