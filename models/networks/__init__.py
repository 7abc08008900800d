"""Networks, each an ``nn.Module`` from [N, 3, 32, 32] in [0, 1] to ten logits; normalisation is a layer of it."""
