"""Raw text → documents → signatures → clusters → deduped → tokens → a mixture."""
