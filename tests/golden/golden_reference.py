"""MAR and D-JEPA written a second time: plainly, from the papers, in the names and the order of the published code.

Nothing here is djepa's. It is what djepa is held against where the recorded numbers of the reference are not at hand, and in
sizes that they do not cover. Masks are 1 where a token is hidden, 0 where it is visible.
"""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

TIMES = 1000


class Attention(nn.Module):
    def __init__(self, dim, num_heads, qk_norm):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()

    def forward(self, x):
        b, n, dim = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        scores = self.q_norm(q) @ self.k_norm(k).transpose(-2, -1) / math.sqrt(self.head_dim)
        return self.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, dim))


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, num_heads, mlp_ratio, qk_norm):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, num_heads, qk_norm), Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TimeEmbedding(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
        return self.mlp(torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1))


class ResBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x, y):
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, dim=-1)
        return x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift)


class FinalLayer(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, y):
        shift, scale = self.adaLN_modulation(y).chunk(2, dim=-1)
        return self.linear(self.norm_final(x) * (1 + scale) + shift)


class DenoisingNet(nn.Module):
    def __init__(self, channels, outputs, z_channels, width, depth):
        super().__init__()
        self.time_embed, self.cond_embed = TimeEmbedding(width), nn.Linear(z_channels, width)
        self.input_proj = nn.Linear(channels, width)
        self.res_blocks = nn.ModuleList(ResBlock(width) for _ in range(depth))
        self.final_layer = FinalLayer(width, outputs)

    def forward(self, x, t, c):
        x, y = self.input_proj(x), self.time_embed(t) + self.cond_embed(c)
        for block in self.res_blocks:
            x = block(x, y)
        return self.final_layer(x, y)


class FeatureNet(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(dim, 4 * dim), nn.LayerNorm(4 * dim, eps=1e-6), nn.Linear(4 * dim, out)

    def forward(self, z):
        return self.fc2(self.norm(F.gelu(self.fc1(z))))


class Holder(nn.Module):
    """The published losses keep their network under `net`."""

    def __init__(self, net):
        super().__init__()
        self.net = net


class Model(nn.Module):
    """MAR ("mar") or D-JEPA ("djepa-gauss", "djepa-flow"), with the sizes of a `config.json`."""

    def __init__(self, config):
        super().__init__()
        c = config
        self.mar, self.flow = c["kind"] == "mar", c["kind"] == "djepa-flow"
        self.patch, self.side = c["patch_size"], c["img_size"] // c["vae_stride"] // c["patch_size"]
        self.channels, self.K = c["vae_embed_dim"] * self.patch**2, c["buffer_size"]
        self.N = n = self.side**2
        width, width2, rows = c["encoder_embed_dim"], c["decoder_embed_dim"], n + (self.K if self.mar else 0)
        self.class_emb, self.fake_latent = nn.Embedding(c["class_num"], width), nn.Parameter(torch.empty(1, width))
        self.encoder_pos_embed_learned = nn.Parameter(torch.empty(1, rows, width))
        self.decoder_pos_embed_learned = nn.Parameter(torch.empty(1, rows, width2))
        self.mask_token = nn.Parameter(torch.empty(1, 1, width2))
        if self.mar:
            self.diffusion_pos_embed_learned = nn.Parameter(torch.empty(1, n, width2))
        else:
            self.buffer = nn.Parameter(torch.empty(1, self.K, width))
            self.jepaloss = Holder(FeatureNet(width2, width))
        self.z_proj, self.z_proj_ln = nn.Linear(self.channels, width), nn.LayerNorm(width, eps=1e-6)
        self.encoder_blocks = nn.ModuleList(
            Block(width, c["encoder_num_heads"], c["mlp_ratio"], c["qk_norm"]) for _ in range(c["encoder_depth"]))
        self.encoder_norm, self.decoder_embed = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, width2)
        self.decoder_blocks = nn.ModuleList(
            Block(width2, c["decoder_num_heads"], c["mlp_ratio"], c["qk_norm"]) for _ in range(c["decoder_depth"]))
        self.decoder_norm = nn.LayerNorm(width2, eps=1e-6)
        outputs = self.channels if self.flow else 2 * self.channels
        self.diffloss = Holder(DenoisingNet(self.channels, outputs, width2, c["diffloss_w"], c["diffloss_d"]))

    def patchify(self, latents):
        b, c, h, w = latents.shape
        p = self.patch
        cut = latents.reshape(b, c, h // p, p, w // p, p)
        return torch.einsum("nchpwq->nhwcpq", cut).reshape(b, self.N, c * p * p)

    def unpatchify(self, tokens):
        b, p, side = len(tokens), self.patch, self.side
        blocks = tokens.reshape(b, side, side, -1, p, p)
        return torch.einsum("nhwcpq->nchpwq", blocks).reshape(b, -1, side * p, side * p)

    def encode(self, tokens, mask, embedding):
        b = len(tokens)
        x = self.z_proj(tokens)
        if self.mar:
            x = torch.cat([embedding[:, None].expand(b, self.K, -1), x], dim=1) + self.encoder_pos_embed_learned
        else:
            x = torch.cat([self.buffer + embedding[:, None], x + self.encoder_pos_embed_learned], dim=1)
        x = self.z_proj_ln(x)
        kept = torch.cat([torch.zeros(b, self.K), mask], dim=1) == 0
        x = x[kept].reshape(b, -1, x.shape[-1])
        for block in self.encoder_blocks:
            x = block(x)
        return self.encoder_norm(x)

    def decode(self, x, mask):
        b = len(x)
        x = self.decoder_embed(x)
        kept = torch.cat([torch.zeros(b, self.K), mask], dim=1) == 0
        full = self.mask_token.repeat(b, self.K + self.N, 1)
        full[kept] = x.reshape(-1, x.shape[-1])
        if self.mar:
            full = full + self.decoder_pos_embed_learned
        else:
            full = torch.cat([full[:, :self.K], full[:, self.K:] + self.decoder_pos_embed_learned], dim=1)
        for block in self.decoder_blocks:
            full = block(full)
        z = self.decoder_norm(full)[:, self.K:]
        return z + self.diffusion_pos_embed_learned if self.mar else z

    def sample(self, orders, embedding, null, *, steps, denoise, guidance, schedule):
        """Generated latents; `denoise(step, z, z_null, scale)` gives the tokens for the context vectors of one step."""
        b, n = orders.shape
        tokens, mask = torch.zeros(b, n, self.channels), torch.ones(b, n)
        for step in range(steps):
            z, z_null = (self.decode(self.encode(tokens, mask, e), mask) for e in (embedding, null))
            left = int(np.floor(n * np.cos(math.pi / 2.0 * (step + 1) / steps)))
            left = max(1, min(int(mask[0].sum()) - 1, left))
            following = torch.zeros(b, n).scatter(1, orders[:, :left], torch.ones(b, n))
            now = mask.bool() if step == steps - 1 else mask.bool() ^ following.bool()
            scale = 1 + (guidance - 1) * (n - left) / n if schedule == "linear" else guidance
            tokens[now] = denoise(step, z[now], z_null[now] if guidance != 1 else None, scale)
            mask = following
        return self.unpatchify(tokens)


class Diffusion:
    """Gaussian diffusion with a learned variance on a squared-cosine schedule, all in NumPy's float64."""

    def __init__(self, steps=TIMES):
        share = [math.cos((i / TIMES + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(TIMES + 1)]
        full = np.cumprod(1 - np.minimum(1 - np.array(share[1:]) / np.array(share[:-1]), 0.999))
        position, kept = 0.0, []
        for _ in range(steps):
            kept.append(round(position))
            position += (TIMES - 1) / (steps - 1)
        self.times, abar = kept, full[kept]
        before = np.append(1.0, abar[:-1])
        self.betas = betas = 1 - abar / before
        self.abar = abar
        variance = betas * (1 - before) / (1 - abar)
        self.log_variance, self.log_beta = np.log(np.append(variance[1], variance[1:])), np.log(betas)
        self.coef1, self.coef2 = betas * np.sqrt(before) / (1 - abar), (1 - before) * np.sqrt(1 - betas) / (1 - abar)

    def at(self, table, t):
        return torch.from_numpy(table)[t].float()[:, None]

    def losses(self, net, x, t, noise, c):
        """Mean squared error and variational bound of each token."""
        x_t = self.at(np.sqrt(self.abar), t) * x + self.at(np.sqrt(1 - self.abar), t) * noise
        out, v = net(x_t, t, c).chunk(2, dim=1)
        mean, log_var = self.reverse(out, v, x_t, t)
        true_mean, true_log_var = self.at(self.coef1, t) * x + self.at(self.coef2, t) * x_t, self.at(self.log_variance, t)
        kl = 0.5 * (-1 + log_var - true_log_var + torch.exp(true_log_var - log_var)
                    + (true_mean - mean) ** 2 * torch.exp(-log_var))
        bound = torch.where(t[:, None] == 0, -discretized(x, mean, 0.5 * log_var), kl)
        return ((noise - out) ** 2).mean(dim=1), bound.mean(dim=1) / math.log(2)

    def reverse(self, out, v, x_t, t):
        clean = self.at(np.sqrt(1 / self.abar), t) * x_t - self.at(np.sqrt(1 / self.abar - 1), t) * out
        fraction = (v + 1) / 2
        log_var = fraction * self.at(self.log_beta, t) + (1 - fraction) * self.at(self.log_variance, t)
        return self.at(self.coef1, t) * clean + self.at(self.coef2, t) * x_t, log_var

    def step(self, net, x, index, noise, z, z_null, scale, temperature):
        """One step of ancestral sampling, guided when there is a null condition."""
        t = torch.full((len(x),), self.times[index])
        out, v = net(x, t, z).chunk(2, dim=1)
        if z_null is not None:
            null = net(x, t, z_null).chunk(2, dim=1)[0]
            out = null + scale * (out - null)
        mean, log_var = self.reverse(out, v, x, torch.full((len(x),), index))
        return mean if index == 0 else mean + torch.exp(0.5 * log_var) * noise * temperature


def discretized(x, mean, log_std):
    """Log-probability of the bin of half-width 1/255 around x."""
    def cdf(value):
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))

    above = cdf(torch.exp(-log_std) * (x - mean + 1 / 255))
    below = cdf(torch.exp(-log_std) * (x - mean - 1 / 255))
    probability = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return torch.log(probability.clamp(min=1e-12))


def flow_losses(net, x, t, noise, c):
    """Squared error of the velocity; the network is told t itself."""
    velocity = net(t[:, None] * x + (1 - t[:, None]) * noise, t, c)
    return ((x - noise - velocity) ** 2).mean(dim=1)


def flow_sample(net, x, points, z, z_null, scale, shift):
    """Euler steps between so many points in time."""
    times = torch.linspace(0, 1, points)
    times = times / (times + shift - shift * times)
    for t, following in pairwise(times):
        velocity = net(x, t.expand(len(x)), z)
        if z_null is not None:
            null = net(x, t.expand(len(x)), z_null)
            velocity = null + scale * (velocity - null)
        x = x + (following - t) * velocity
    return x
