"""α,β-CROWN: finding an installation, driving it, its settings."""
