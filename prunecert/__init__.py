"""What `bench`, `models` and `verifiers` share: the user-error class, registries, hashes, the version."""

__version__ = "0.1.0"
