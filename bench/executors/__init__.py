"""Who works on the batches: threads of this machine, each with verifier processes of its own."""
