"""The harness beside the loop that starts a verifier once an instance."""
