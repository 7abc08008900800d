"""Who works on the batches: threads of this machine with verifier processes, or jobs of a batch system."""
