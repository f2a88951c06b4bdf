"""What to erase and what to keep: concept sets, their sentences, WordNet and the shipped lists."""
