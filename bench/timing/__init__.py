"""What sparsity buys in verification time, and why: a schedule that is fair to all ratios, and the numbers from it."""
