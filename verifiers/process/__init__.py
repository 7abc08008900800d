"""The machinery round an adapter: its process, its limits, the reading of its network, the judging of its answers."""
