"""Real sound files through libsndfile: what is read, what is refused, what is written."""

import contextlib
import io
import json
import os
import random
import struct
import wave

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from djepa.errors import MediaError, StorageError, UsageError
from djepa_audio import files
from djepa_audio.files import opened, read
from djepa_audio.sound import resample, with_channels
from djepa_audio.writing import encode, write

EXTENSIONS = ("wav", "flac", "ogg", "opus", "mp3")
SUBTYPES = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
            "mp3": ("MP3", "MPEG_LAYER_III")}
RATE = 16000
ANY_FILE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = st.none() | st.booleans() | st.integers(-2**40, 2**40) | st.floats(allow_nan=False) | st.text(max_size=20)


def tone(hertz=440.0, seconds=0.5, rate=RATE, channels=1, loudness=0.5):
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return (loudness * torch.sin(2 * torch.pi * hertz * time)).float().repeat(channels, 1)


def noise(length=8000, channels=1, seed=0):
    return 0.2 * torch.randn(channels, length, generator=torch.Generator().manual_seed(seed)).clamp(-4, 4)


def foreign(path, data, rate=RATE, kind="WAV", subtype="PCM_16"):
    """A file that is not of our making."""
    soundfile.write(path, data.T.numpy(), rate, subtype, format=kind)
    return path


def by(extension, path, data=None):
    kind, subtype = SUBTYPES[extension]
    return foreign(path, noise() if data is None else data, RATE, kind, subtype)


def loudness_at(data, hertz, rate):
    """Amplitude of one frequency, in the middle of a sound."""
    middle = data[0, len(data[0]) // 4:-(len(data[0]) // 4)].double()
    angle = 2 * torch.pi * hertz / rate * torch.arange(len(middle), dtype=torch.float64)
    window = torch.hann_window(len(middle), dtype=torch.float64)
    return (2 * torch.complex(torch.cos(angle), torch.sin(angle)) * middle * window).sum().abs().item() / window.sum().item()


# ---- reading

@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_read_whatever_its_name(tmp_path, extension, channels):
    data = tone(channels=channels)
    path = by(extension, tmp_path / "misleading.txt", data)
    found, meta = read(path)
    assert meta == {"sample_rate": RATE} and found.dtype == torch.float32 and found.is_contiguous()
    assert found.shape == data.shape
    torch.testing.assert_close(found[:, :-200], data[:, :-200], rtol=0, atol=0.05)  # opus fades out what ends suddenly


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"])
def test_every_kind_of_wav_is_read(tmp_path, subtype):
    data = tone(seconds=0.1)
    found, _ = read(foreign(tmp_path / "a.wav", data, subtype=subtype))
    error = (found[:, :data.shape[1]] - data).abs()  # adpcm fills its last block, and takes some samples to catch up
    assert error.mean() < 0.01 and error[:, 50:].max() < 0.03


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_part_is_what_it_is_in_the_whole(tmp_path, extension):
    path = by(extension, tmp_path / f"a.{extension}", noise(40_000))
    whole, _ = read(path)
    with opened(path) as recording:
        assert (recording.sample_rate, recording.num_frames, recording.num_channels) == (RATE, 40_000, 1)
        places = np.random.default_rng(0).integers(0, 37_000, 30)
        for start, count in ((0, 100), (20_001, 3000), (39_990, 10), (12_345, 1), *((int(place), 3000) for place in places)):
            part = recording.read(start=start, num_frames=count)
            torch.testing.assert_close(part, whole[:, start:start + count], rtol=0, atol=1e-6)
        assert recording.read(start=39_000, num_frames=5000).shape == (1, 1000)


def test_a_part_is_read_without_decoding_the_rest(tmp_path):
    path = by("flac", tmp_path / "a.flac", noise(60_000))
    path.write_bytes(path.read_bytes()[:30_000])  # whoever decodes the end finds that it is not there
    with opened(path) as recording:
        assert recording.read(num_frames=4000).shape == (1, 4000)


@pytest.mark.parametrize(("stored", "asked", "expected"), [
    (1, None, [0.25]), (2, None, [0.25, 0.75]), (1, 2, [0.25, 0.25]), (2, 1, [0.5]), (6, 1, [0.5]),
])
def test_channels_are_converted(tmp_path, stored, asked, expected):
    levels = {1: [0.25], 2: [0.25, 0.75], 6: [0.25, 0.75] * 3}[stored]
    path = foreign(tmp_path / "a.wav", torch.tensor(levels)[:, None].expand(-1, 100))
    assert read(path, asked)[0][:, 50].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("channels", [None, 2])
def test_more_channels_are_refused_unless_mixed_to_one(tmp_path, channels):
    path = foreign(tmp_path / "surround.wav", torch.zeros(6, 100))
    with pytest.raises(MediaError, match=r"surround\.wav.*6|surround\.wav.*2 channels of 6"):
        read(path, channels)


def test_louder_values_are_clipped(tmp_path):
    path = foreign(tmp_path / "loud.wav", torch.tensor([[0.5, 1.5, -9.0]]), subtype="FLOAT")
    assert read(path)[0].tolist() == [[0.5, 1.0, -1.0]]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("tag", [b"", b"ID3\x03\0\0\0\0\x02\0" + bytes(256)], ids=["plain", "tagged"])
def test_mp3_files_of_another_encoder_are_read(tmp_path, rate, tag):
    with av.open(str(tmp_path / "a.mp3"), "w") as container:  # with a tag of its own, which another one may precede
        stream = container.add_stream("mp3", rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(rate=rate).numpy(), "fltp", "mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    content = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(tag + content + b"TAG" + bytes(125))
    found, meta = read(tmp_path / "a.mp3")
    assert meta == {"sample_rate": rate} and found.shape == (1, pytest.approx(rate // 2, abs=2 * 1152))
    assert loudness_at(found, 440, rate) == pytest.approx(0.475, abs=0.02)  # LAME makes everything a little softer


def test_a_wav_written_into_a_pipe_is_read(tmp_path):
    path = by("wav", tmp_path / "a.wav", tone())
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    for length in (0xFFFF_FFFF, 0x7FFF_F000):  # what writers put that did not know the length
        content[place:place + 4] = struct.pack("<I", length)
        path.write_bytes(content)
        assert read(path)[0].shape == (1, 8000)


# ---- what is refused

def test_missing_empty_and_folders(tmp_path):
    (tmp_path / "empty.wav").touch()
    for name, words in ("empty.wav", "empty"), ("missing.wav", "No such file"), ("", "Not a file"):
        with pytest.raises(MediaError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize("content", [b"hello, I am a text", b"\0" * 1000, b"\xff\xfeu\0t\0f\0001\0006\0", b"\x89PNG\r\n\x1a\n",
                                     b"RIFF\0\0\0\0AVI LIST", b"\xff"])
def test_what_is_no_sound_is_an_error_whatever_its_name(tmp_path, content):
    for name in "text.wav", "text.mp3", "text.raw", "text.vox":  # libsndfile takes anything for raw samples under some names
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=rf"{name}.*no sound"):
            read(tmp_path / name)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("part", [0.95, 0.6, 0.1, 0.005])
def test_a_sound_cut_short_is_an_error(tmp_path, capfd, extension, part):
    path = by(extension, tmp_path / f"cut.{extension}", noise(100_000))
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * part)])
    with pytest.raises(MediaError, match=rf"cut\.{extension}.*cut short"):
        read(path)
    capfd.readouterr()  # libmpg123 says so itself, on the error output


def test_an_mp3_whose_beginning_is_damaged_is_an_error(tmp_path):
    path = by("mp3", tmp_path / "a.mp3")
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xfb" if b"\xff\xfb" in content else b"\xff\xf3")] = 0x55
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.mp3.*(whole frame|no sound)"):
        read(path)


def test_many_encoders_of_mp3_miscount_a_little(tmp_path, capfd):
    path = by("mp3", tmp_path / "a.mp3", noise(100_000))
    content = path.read_bytes()
    path.write_bytes(content[:-300])  # the last frame
    found, _ = read(path)
    assert found.shape == (1, 100_000) and found[0, -100:].abs().max() == 0
    capfd.readouterr()


def test_a_wav_without_its_last_comment_is_whole(tmp_path):
    path = write(tone(), tmp_path / "a.wav", "wav", {"sample_rate": RATE, "text": "a" * 100})
    path.write_bytes(path.read_bytes()[:-50])
    assert read(path)[0].shape == (1, 8000)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_an_error(tmp_path, value):
    data = tone()
    data[0, 17] = value
    with pytest.raises(MediaError, match=r"a\.wav.* 1 values that are not numbers"):
        read(foreign(tmp_path / "a.wav", data, subtype="FLOAT"))


def test_what_is_too_long_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = by("flac", tmp_path / "long.flac", torch.zeros(2, 10_000))
    monkeypatch.setattr(files, "MAX_VALUES", 10_000)
    with pytest.raises(MediaError, match=r"long\.flac.*too long.*10,000 samples of 2"):
        read(path)
    with opened(path) as recording:
        assert recording.read(num_frames=5000).shape == (2, 5000)
        with pytest.raises(MediaError, match="too long"):
            recording.read(num_frames=5001)


def test_a_header_that_claims_hours_costs_no_memory(tmp_path):
    path = by("flac", tmp_path / "bomb.flac", tone())
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the length in STREAMINFO: 36 bits
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"bomb\.flac.*too long"):
        read(path)


def test_a_header_that_does_not_know_its_length_says_what_to_do(tmp_path):
    path = by("flac", tmp_path / "piped.flac", tone())
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = b"\0" * 4
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"piped\.flac.*how long.*ffmpeg"):
        read(path)


def test_a_sound_of_no_samples_is_an_error(tmp_path):
    with pytest.raises(MediaError, match=r"none\.wav.*0 samples"):
        read(foreign(tmp_path / "none.wav", torch.zeros(1, 0)))


@ANY_FILE
@given(st.sampled_from(EXTENSIONS), st.integers(0, 2**32))
def test_damage_never_surprises(tmp_path, capfd, extension, seed):
    draw = random.Random(seed)
    damaged = bytearray(by(extension, tmp_path / "whole", tone(seconds=0.1)).read_bytes())
    for _ in range(draw.randint(1, 8)):
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    (tmp_path / "damaged").write_bytes(damaged)
    try:
        data, meta = read(tmp_path / "damaged")
    except MediaError as error:
        assert "/damaged'" in str(error)
    else:
        assert bool((data.abs() <= 1).all()) and isinstance(meta["sample_rate"], int)
    capfd.readouterr()


# ---- resampling

@pytest.mark.parametrize(("rate", "new_rate"), [(44100, 22050), (48000, 16000), (16000, 22050), (8000, 44100), (11025, 16000)])
def test_resampling_keeps_pitch_and_loudness(rate, new_rate):
    found = resample(tone(440, 0.5, rate), rate, new_rate)
    assert found.shape == (1, -(-round(0.5 * rate) * new_rate // rate))
    assert loudness_at(found, 440, new_rate) == pytest.approx(0.5, abs=0.005)
    high = 0.9 * min(rate, new_rate) / 2
    assert loudness_at(resample(tone(high, 0.5, rate), rate, new_rate), high, new_rate) == pytest.approx(0.5, abs=0.02)


def test_what_the_new_rate_cannot_hold_is_gone_and_not_folded_down():
    found = resample(tone(9000, 0.5, 44100), 44100, 16000)
    assert found.abs()[:, 1000:-1000].max() < 1e-3


def test_the_same_rate_changes_nothing():
    data = noise()
    assert torch.equal(resample(data, 44100, 44100), data)


def test_rates_with_no_common_factor_are_refused(tmp_path):
    with pytest.raises(UsageError, match="44101 Hz to 22051 Hz"):
        resample(tone(), 44101, 22051)
    path = foreign(tmp_path / "odd.wav", tone(), 44101)
    with opened(path) as recording, pytest.raises(MediaError, match=r"odd\.wav.*44101 Hz to 22051"):
        recording.read(sample_rate=22051)


@given(st.integers(1, 2), st.integers(1, 2), st.integers(1, 50))
def test_channels_there_and_back(channels, others, length):
    data = noise(length, channels)
    there = with_channels(data, others)
    assert there.shape == (others, length)
    torch.testing.assert_close(with_channels(there, 1), with_channels(data, 1))


# ---- writing

@ANY_FILE
@given(st.sampled_from(["wav", "flac"]), st.integers(1, 2), st.integers(1, 300), st.integers(1, 65_535),
       st.dictionaries(st.text(max_size=6), PLAIN, max_size=3), st.integers(0, 1000))
def test_lossless_formats_keep_24_bits_and_metadata(tmp_path, extension, channels, length, rate, meta, seed):
    levels = torch.randint(-2**23, 2**23, (channels, length), generator=torch.Generator().manual_seed(seed))
    data, meta = levels.float() / 2**23, {**meta, "sample_rate": rate}
    back, kept = read(write(data, tmp_path / f"a.{extension}", extension, meta))
    assert torch.equal(back, data)
    assert kept == meta


@pytest.mark.parametrize("extension", ["ogg", "opus", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [1, 100, 4001, 200_000])
def test_lossy_formats_are_close_as_long_and_keep_metadata(tmp_path, extension, channels, length):
    data = tone(seconds=13, channels=channels)[:, :length]
    meta = {"sample_rate": RATE, "condition": {"text": "grün 🐈"}, "seed": 3, "nested": [1.5, None]}
    back, kept = read(write(data, tmp_path / f"a.{extension}", extension, meta))
    assert (back.shape, kept) == (data.shape, meta)
    assert (back - data).abs().mean() < 0.05


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_metadata_may_be_long(tmp_path, extension):
    meta = {"sample_rate": RATE, "text": "word " * 8000}  # libsndfile drops comments above 2 kB from wav files
    assert read(write(tone(), tmp_path / f"a.{extension}", extension, meta))[1] == meta


def test_what_a_format_cannot_hold_is_said_with_the_way_out():
    for meta, extension, words in (({"sample_rate": RATE, "text": "a" * 60_000}, "opus", "write a wav"),
                                   ({"sample_rate": 22050}, "opus", "nearest that they can is 24000"),
                                   ({"sample_rate": 30_000}, "mp3", "nearest that they can is 32000"),
                                   ({"sample_rate": 384_000}, "ogg", "nearest that they can is 200000"),
                                   ({"sample_rate": 700_000}, "flac", "nearest that they can is 655350")):
        with pytest.raises(UsageError, match=words):
            encode(tone(), extension, meta)


@pytest.mark.parametrize("rate", [None, 0, -1, 0.5, float("nan"), float("inf"), True, "16000"])
def test_a_sample_rate_must_be_one(rate):
    with pytest.raises(UsageError, match="sample_rate"):
        encode(tone(), "wav", {} if rate is None else {"sample_rate": rate})


def test_other_programs_can_read_the_files_and_their_metadata(tmp_path):
    data = torch.tensor([[0.0, 0.5, -1.0, 1.0, 0.25]])
    path = write(data, tmp_path / "a.wav", "wav", {"sample_rate": RATE, "seed": 3})
    with wave.open(str(path)) as plain:
        assert (plain.getframerate(), plain.getnchannels(), plain.getsampwidth(), plain.getnframes()) == (RATE, 1, 3, 5)
    content = path.read_bytes()
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
    for extension in EXTENSIONS:
        with soundfile.SoundFile(io.BytesIO(encode(data, extension, {"sample_rate": RATE, "seed": 3}))) as sound:
            assert json.loads(sound.comment) == {"djepa": {"sample_rate": RATE, "seed": 3}}


@pytest.mark.parametrize("text", ["not json", "[1, 2]", "[" * 1000, "3", '{"djepa": 4}', '{"artist": "x"}'])
def test_foreign_comments_are_left_alone(tmp_path, text):
    for extension, (kind, subtype) in SUBTYPES.items():
        with soundfile.SoundFile(tmp_path / "a", "w", RATE, 1, subtype, format=kind) as sound:
            sound.comment = text
            sound.write(tone()[0].numpy())
        assert read(tmp_path / "a")[1] == {"sample_rate": RATE}, extension


def test_the_header_is_right_where_the_metadata_is_wrong(tmp_path):
    content = encode(tone(), "flac", {"sample_rate": RATE})
    (tmp_path / "a.flac").write_bytes(content.replace(b'"sample_rate": 16000', b'"sample_rate": 99999'))
    assert read(tmp_path / "a.flac")[1] == {"sample_rate": RATE}


def test_values_outside_the_range_are_clipped_and_the_sample_is_not_touched(tmp_path):
    data = torch.tensor([[-9.0, -1.0, 0.5, 1.5, float("inf")]])
    before = data.clone()
    back, _ = read(write(data, tmp_path / "a.wav", "wav", {"sample_rate": RATE}))
    assert back.flatten().tolist() == [-1, -1, 0.5, 1 - 2**-23, 1 - 2**-23]
    assert torch.equal(data, before)


@pytest.mark.parametrize("data", [
    torch.full((1, 4), torch.nan), torch.zeros(3, 40), torch.zeros(40), torch.zeros(1, 0),
    torch.zeros(1, 40, dtype=torch.int16),
])
def test_what_is_no_sound_is_not_written(tmp_path, data):
    write(tone(), tmp_path / "a.wav", "wav", {"sample_rate": RATE})
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(UsageError):
        write(data, tmp_path / "a.wav", "wav", {"sample_rate": RATE})
    assert (tmp_path / "a.wav").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_metadata_must_be_plain(extension):
    with pytest.raises(UsageError, match="Plain values"):
        encode(tone(), extension, {"sample_rate": RATE, "condition": torch.zeros(3)})


def test_a_disk_that_refuses_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        write(tone(), tmp_path / "file" / "a.wav", "wav", {"sample_rate": RATE})


def test_half_precision_sounds_are_written(tmp_path):
    data = torch.linspace(-1, 1, 16).reshape(1, 16).bfloat16()
    back, _ = read(write(data, tmp_path / "a.wav", "wav", {"sample_rate": RATE}))
    torch.testing.assert_close(back, data.float(), rtol=0, atol=2**-23)


# ---- many files

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts open files in /proc")
def test_five_hundred_files_leave_nothing_open(tmp_path, capfd):
    paths = [by(extension, tmp_path / f"a.{extension}", noise(4000)) for extension in EXTENSIONS]
    for extension, path in zip(EXTENSIONS, list(paths), strict=True):
        paths.append(tmp_path / f"cut.{extension}")
        paths[-1].write_bytes(path.read_bytes()[:300])

    def go_through(count):
        for number in range(count):
            with contextlib.suppress(MediaError):
                read(paths[number % len(paths)])

    go_through(50)  # what is kept from the first use on
    before, open_before = resident(), len(os.listdir("/proc/self/fd"))
    go_through(500)
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert resident() - before < 8 << 10  # KiB; the files decoded would take that much if a tenth of them stayed
    capfd.readouterr()


def test_numpy_views_do_not_keep_the_whole_file(tmp_path):
    path = by("wav", tmp_path / "a.wav", noise(100_000, channels=2))
    with opened(path) as recording:
        part = recording.read(channels=1, num_frames=10)
    assert part.untyped_storage().nbytes() == 10 * np.dtype(np.float32).itemsize
