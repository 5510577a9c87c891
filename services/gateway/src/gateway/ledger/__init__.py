"""The ledger: what was asked for and what became of it. It is the truth; Ray only carries it out."""
