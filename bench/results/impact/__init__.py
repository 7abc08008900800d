"""What pruning takes from whom: classes and images that lose, or gain, accuracy and guarantees; pure functions.

rows of a run, or an entry ── images ──► ImageOutcomes      a network: correct, robust, verified, image by image
                              pairs ───► Comparison         dense and pruned networks, seed by seed, same images
                              ├─ classes ────► ClassChange  who loses more, with tests corrected for their number
                              ├─ exemplars ──► Exemplars    images whose guarantee the majority of seeds lose
                              ├─ potential ──► Potential    how much can go before accuracy falls
                              └─ methods ────► MethodLine   pruners against the dense control and against LWM
"""
