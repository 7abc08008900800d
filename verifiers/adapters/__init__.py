"""One adapter a verifier, or a family of them: questions in, answers out, nothing more."""
