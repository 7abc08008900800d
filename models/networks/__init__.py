"""Networks, each an ``nn.Module`` from [N, C, H, W] in [0, 1] to logits; normalisation is a layer of it."""
