"""AutoAttack."""
