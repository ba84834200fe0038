"""The autoencoder of latent diffusion written a second time, plainly, in its original names. Nothing here is djepa's."""

import torch
from torch import nn
from torch.nn import functional as F


def norm(channels):
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.q, self.k, self.v))
        weights = (q.transpose(1, 2) @ k * q.shape[1] ** -0.5).softmax(dim=-1)
        return x + self.proj_out((v @ weights.transpose(1, 2)).reshape(x.shape))


class Level(nn.Module):
    def __init__(self, inputs, outputs, blocks, attends):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(outputs if i else inputs, outputs) for i in range(blocks))
        self.attn = nn.ModuleList(Attention(outputs) for _ in range(blocks if attends else 0))

    def forward(self, x):
        for number, block in enumerate(self.block):
            x = block(x)
            x = self.attn[number](x) if len(self.attn) else x
        return x


class Resample(nn.Module):
    def __init__(self, channels, up):
        super().__init__()
        self.up, self.conv = up, nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1 if up else 0)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0) if self.up else F.pad(x, (0, 1, 0, 1)))


class Middle(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.block_1, self.block_2 = ResBlock(channels, channels), ResBlock(channels, channels)
        self.attn_1 = Attention(channels)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, channels, blocks, latents, attention):
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down = nn.ModuleList(Level(channels[max(i - 1, 0)], c, blocks, attention[i]) for i, c in enumerate(channels))
        for level, width in zip(self.down[:-1], channels, strict=False):
            level.downsample = Resample(width, up=False)
        self.mid, self.norm_out = Middle(channels[-1]), norm(channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], 2 * latents, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
            x = level.downsample(x) if hasattr(level, "downsample") else x
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, channels, blocks, latents, attention):
        super().__init__()
        top = len(channels) - 1
        self.conv_in, self.mid = nn.Conv2d(latents, channels[-1], 3, padding=1), Middle(channels[-1])
        self.up = nn.ModuleList(
            Level(channels[min(i + 1, top)], c, blocks + 1, attention[i]) for i, c in enumerate(channels))
        for level, width in zip(self.up[1:], channels[1:], strict=True):
            level.upsample = Resample(width, up=True)
        self.norm_out, self.conv_out = norm(channels[0]), nn.Conv2d(channels[0], 3, 3, padding=1)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
            x = level.upsample(x) if hasattr(level, "upsample") else x
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """Channels by level, the finest first; whether each level of the encoder and of the decoder attends."""

    def __init__(self, channels, blocks, latents, encoder_attention, decoder_attention):
        super().__init__()
        self.encoder = Encoder(channels, blocks, latents, encoder_attention)
        self.decoder = Decoder(channels, blocks, latents, decoder_attention)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * latents, 2 * latents, 1), nn.Conv2d(latents, latents, 1)

    def moments(self, pixels):
        return self.quant_conv(self.encoder(pixels))

    def decoded(self, latents):
        return self.decoder(self.post_quant_conv(latents))

    @torch.no_grad()
    def scatter(self, generator):
        """Random weights in which no two parameters are alike."""
        for parameter in self.parameters():
            spread = 0.5 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.1
            shift = 1.0 if parameter.dim() == 1 and float(parameter[0]) == 1.0 else 0.0
            parameter.copy_(shift + spread * torch.randn(parameter.shape, generator=generator))
        return self.eval()
