"""Features of sounds: statistics with known values, and small networks with drawn weights."""

import math

import pytest
import torch

from djepa.errors import UsageError
from djepa.random import seeded
from djepa.tokens import Sample
from djepa_audio.features import FLOOR, AudioEncoder, MelStatistics
from djepa_audio.modality import Audio

RATE = 8000


def tone(frequency, seconds=1.0, rate=RATE, loudness=0.5):
    return Sample(loudness * torch.sin(2 * math.pi * frequency * torch.arange(int(seconds * rate)) / rate)[None],
                  {"sample_rate": rate}, "audio")


def test_statistics_tell_pitch_loudness_and_change():
    low, high, soft = tone(200), tone(2000), tone(200, loudness=0.05)
    beating = Sample(low.data * (torch.arange(RATE) // 1000 % 2), low.meta, "audio")
    means, spread, changes = MelStatistics().extract([low, high, soft, beating]).vectors.unflatten(1, (3, 40)).unbind(1)
    assert means[0].argmax() < 10 < 25 < means[1].argmax()
    loudest = means[0].argmax()
    assert means[0, loudest] - means[2, loudest] == pytest.approx(math.log(10), abs=0.01)
    assert spread[3, loudest] > 10 * spread[0, loudest] and changes[3, loudest] > 10 * changes[0, loudest]


def test_statistics_bear_silence_and_any_length_and_are_the_audios_own():
    silence = Sample(torch.zeros(2, 5), {"sample_rate": RATE}, "audio")
    found = MelStatistics().extract([silence, tone(300, 0.3), tone(300, 2.1)]).vectors
    assert found.shape == (3, 120) and found[0].tolist() == pytest.approx([math.log(FLOOR)] * 40 + [0.0] * 80)
    assert Audio().default_features() == {"kind": "mel-statistics"}
    with pytest.raises(UsageError, match="8000 and 16000 Hz"):
        MelStatistics().extract([tone(300), tone(300, rate=16000)])


def saved(folder, network, preparation):
    network.eval().save_pretrained(folder)
    preparation.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def test_a_network_without_a_summary_is_averaged_over_time(tmp_path):
    import transformers

    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, conv_dim=(8, 8), conv_stride=(5, 4),
        conv_kernel=(10, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    with seeded(0, "network"):
        network = transformers.Wav2Vec2Model(config)
    source = saved(tmp_path, network, transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=False))
    sounds = [tone(200, 0.2), tone(500, 0.35)]
    found = AudioEncoder(source=source).extract(sounds).vectors
    expected = torch.cat([network(sound.data).last_hidden_state.mean(1) for sound in sounds])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    resampled = AudioEncoder(source=source).extract([tone(200, 0.2, rate=2 * RATE)]).vectors  # the same sound
    assert (resampled - found[:1]).norm() < 0.1 * found[:1].norm()


@torch.no_grad()
def test_of_a_clap_it_is_the_embedding_of_its_tower(tmp_path):
    import transformers

    tower = {"spec_size": 64, "num_mel_bins": 16, "patch_embeds_hidden_size": 8, "depths": [1, 1],
             "num_attention_heads": [2, 2], "hidden_size": 16, "window_size": 4, "patch_size": 4, "patch_stride": [4, 4],
             "projection_dim": 6}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20,
            "projection_dim": 6}
    with seeded(0, "network"):
        network = transformers.ClapModel(transformers.ClapConfig(text_config=text, audio_config=tower, projection_dim=6))
    preparation = transformers.ClapFeatureExtractor(feature_size=16, sampling_rate=RATE, hop_length=100, max_length_s=1,
                                                    fft_window_size=256, frequency_max=4000, truncation="rand_trunc")
    source = saved(tmp_path, network, preparation)
    extractor = AudioEncoder(source=source)
    found = extractor.extract([tone(200), tone(2000)]).vectors
    assert found.shape == (2, 6) and bool(found.isfinite().all()) and not torch.allclose(found[0], found[1])
    assert torch.equal(extractor.extract([tone(200, 1.7)]).vectors, found[:1])  # of a longer sound, no part drawn at random
