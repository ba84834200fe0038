"""Writes directories of golden vectors: a random checkpoint in the published layout, inputs, noise, and what the plain
reimplementation in `golden_reference` makes of them."""

import argparse
import json
from pathlib import Path

import torch
from golden_autoencoder import Autoencoder
from golden_reference import Diffusion, Model, flow_losses, flow_sample
from safetensors.torch import save_file
from torch.nn import functional as F

SIZES = {
    "img_size": 64, "vae_stride": 8, "patch_size": 2, "encoder_embed_dim": 24, "encoder_depth": 1, "encoder_num_heads": 2,
    "decoder_embed_dim": 36, "decoder_depth": 2, "decoder_num_heads": 3, "mlp_ratio": 4, "vae_embed_dim": 2, "class_num": 3,
    "buffer_size": 5, "diffloss_d": 3, "diffloss_w": 20, "num_sampling_steps": "7", "diffusion_batch_mul": 1,
}
SAMPLES = {"sample_cfg1": (1.0, "linear", 0.9, 5, 1.0), "sample_cfg3": (3.0, "linear", 1.0, 6, 1.0),
           "sample_cfg2c": (2.0, "constant", 0.98, 4, 2.0)}  # guidance, schedule, temperature, steps, shift of flow


def scattered(model, generator):
    """Small random weights in which no two parameters are alike."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "_ln.weight"))
            spread = 0.1 if scale else 0.05 if name.endswith("bias") else 0.08
            parameter.copy_(float(scale) + spread * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def checkpoint(raw, ema, config, path):
    """The file that the published training scripts write."""
    settings = argparse.Namespace(**{name: value for name, value in config.items() if name not in ("kind", "qk_norm")})
    states = {index: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)} for index in range(2)}
    torch.save({"model": raw.state_dict(), "model_ema": ema.state_dict(), "epoch": 7, "args": settings,
                "optimizer": {"state": states, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95), "params": [0, 1]}]},
                "scaler": {"scale": 65536.0, "_growth_tracker": 3}}, path)


def write_model(directory, kind, *, batch=2, masked=11, seed=0, **sizes):
    """A directory of a model; sizes that are not given are those of `SIZES`. Returns its path."""
    generator = torch.Generator().manual_seed(seed)
    config = {"kind": kind, **SIZES, "qk_norm": kind != "mar", **sizes}
    raw, model = (scattered(Model(config), generator) for _ in range(2))
    directory = Path(directory)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    checkpoint(raw, model, config, directory / "checkpoint-last.pth")
    with torch.no_grad():
        tensors = model_tensors(model, config, batch, masked, generator)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "golden.safetensors")
    return directory


def model_tensors(model, config, batch, masked, generator):
    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    n, d, net = model.N, model.channels, model.diffloss.net
    width, width2 = config["encoder_embed_dim"], config["decoder_embed_dim"]
    side = config["img_size"] // config["vae_stride"]
    latents, labels = randn(batch, config["vae_embed_dim"], side, side), torch.arange(batch) % config["class_num"]
    ranks = torch.stack([torch.randperm(n, generator=generator) for _ in range(batch)])
    mask = (ranks < masked).float()
    tokens, embedding = model.patchify(latents), model.class_emb(labels)
    null = model.fake_latent.expand(batch, -1)
    encoded = model.encode(tokens, mask, embedding)
    z = model.decode(encoded, mask)
    out = {"latents": latents, "tokens": tokens, "labels": labels, "mask": mask, "encoder_out": encoded,
           "encoder_out_uncond": model.encode(tokens, mask, null), "z": z,
           "head_xt": randn(7, d), "head_c": randn(7, width2), "loss_noise": randn(batch * n, d)}
    flat, context = tokens.reshape(-1, d), z.reshape(-1, width2)
    if model.flow:
        out["head_t"], out["loss_t"] = torch.rand(7, generator=generator), torch.rand(batch * n, generator=generator)
        out["loss_per_token"] = flow_losses(net, flat, out["loss_t"], out["loss_noise"], context)
    else:
        out["head_t"], out["loss_t"] = (torch.randint(1000, (count,), generator=generator) for count in (7, batch * n))
        out["loss_t"][:3] = 0  # where the bound is a likelihood
        mse, bound = Diffusion().losses(net, flat, out["loss_t"], out["loss_noise"], context)
        out |= {"loss_mse_per_token": mse, "loss_vb_per_token": bound, "loss_per_token": mse + bound}
        out |= single_steps(net, int(config["num_sampling_steps"]), out["head_c"], randn)
    out["head_out"] = net(out["head_xt"], out["head_t"], out["head_c"])
    out["loss"] = (out["loss_per_token"] * mask.flatten()).sum() / mask.sum()
    if not model.mar:
        out |= feature_tensors(model, z, mask, randn(batch, n, width), tokens, embedding)
    for name, settings in SAMPLES.items():
        orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(batch)])
        made = sample_tensors(model, int(config["num_sampling_steps"]), orders, embedding, null, settings, randn)
        out |= {f"{name}/{key}": tensor for key, tensor in made.items()}
    return out


def feature_tensors(model, z, mask, target, tokens, embedding):
    predicted = model.jepaloss.net(z)
    loss = F.smooth_l1_loss(predicted, target, beta=2.0, reduction="none").mean(dim=-1)
    return {"jepa_target": target, "jepa_pred": predicted, "jepa_loss": (loss * mask).sum() / mask.sum(),
            "target_encoder_out": model.encode(tokens, torch.zeros_like(mask), embedding)[:, model.K:]}


def single_steps(net, steps, context, randn):
    diffusion, null = Diffusion(steps), randn(*context.shape)
    x, noise = (randn(steps, 7, net.input_proj.in_features) for _ in range(2))
    made = [diffusion.step(net, x[i], steps - 1 - i, noise[i], context, null, 2.0, 0.9) for i in range(steps)]
    return {"head_c_uncond": null, "ddpm_timesteps": torch.tensor(diffusion.times[::-1]), "ddpm_x": x, "ddpm_noise": noise,
            "ddpm_next": torch.stack(made)}


def sample_tensors(model, points, orders, embedding, null, settings, randn):
    guidance, schedule, temperature, steps, shift = settings
    net, kept = model.diffloss.net, {"orders": orders}

    def denoise(step, z, z_null, scale):
        x = kept[f"step{step}/init_noise"] = randn(len(z), model.channels)
        if model.flow:
            return flow_sample(net, x, points, z, z_null, scale, shift)
        noise, diffusion = randn(points, len(z), model.channels), Diffusion(points)
        kept[f"step{step}/step_noise"] = noise
        for i in range(points):
            x = diffusion.step(net, x, points - 1 - i, noise[i], z, z_null, scale, temperature)
        return x

    latents = model.sample(orders, embedding, null, steps=steps, denoise=denoise, guidance=guidance, schedule=schedule)
    return {**kept, "latents": latents}


def write_autoencoder(directory, *, channels=(32, 64), blocks=1, latents=3, encoder_attention=(False, True),
                      decoder_attention=(False, False), seed=0):
    """A directory of an autoencoder, with a loss among its tensors as published ones have. Returns its path."""
    generator = torch.Generator().manual_seed(seed)
    network = Autoencoder(channels, blocks, latents, encoder_attention, decoder_attention).scatter(generator)
    directory = Path(directory)
    directory.mkdir(parents=True)
    tensors = {**network.state_dict(), "loss.logvar": torch.zeros(())}
    torch.save({"model": tensors}, directory / "kl16-tiny.ckpt")
    stride = 2 ** (len(channels) - 1)
    pixels = torch.rand(2, 3, 8 * stride, 8 * stride, generator=generator) * 2 - 1
    z = torch.randn(2, latents, 8, 8, generator=generator)
    with torch.no_grad():
        moments = network.moments(pixels)
        mean, logvar = moments.chunk(2, dim=1)
        decoded = network.decoded(z)
    save_file({"image": pixels, "latents": z, "moments": moments, "mean": mean.contiguous(), "decoded": decoded,
               "logvar": logvar.clamp(-30, 20).contiguous()}, directory / "golden.safetensors")
    return directory
