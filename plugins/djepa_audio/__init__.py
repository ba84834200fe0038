"""Audio: what this plugin offers, by name; imports none of it."""

from __future__ import annotations

from djepa.hookspecs import Register, hookimpl


@hookimpl
def djepa_register_modalities(register: Register) -> None:
    register("audio", "djepa_audio.modality:Audio", summary="sounds, mono or stereo: wav, flac, ogg, mp3")


@hookimpl
def djepa_register_datasets(register: Register) -> None:
    register("plucked-strings", "djepa_audio.plucked_strings:PluckedStrings",
             summary="plucked strings by note (two octaves) and timbre, synthesized on the fly")
    register("audio-folder", "djepa_audio.folder:AudioFolder", summary="a folder of sounds, one sub-folder per class")
    register("ljspeech", "djepa_audio.ljspeech:LJSpeech", summary="speech with its text: metadata.csv beside wavs/")


@hookimpl
def djepa_register_feature_extractors(register: Register) -> None:
    register("mel-statistics", "djepa_audio.features:MelStatistics",
             summary="how loud sounds are in each mel bin, and how that varies; no network")
    register("audio-encoder", "djepa_audio.features:AudioEncoder",
             summary="sounds through a network of transformers (CLAP, Wav2Vec2, ...) from a local folder")
