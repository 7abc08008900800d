"""The harness: one file per verb, and a folder per floor and product; docs/architecture.md draws them."""
