"""The networks of `cifar10-4nets`; inputs in [0, 1], no normalisation layer."""
