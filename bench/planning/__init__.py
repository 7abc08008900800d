"""From a suite to questions: networks are exported and counted, verifiers looked up, instances named by content."""
