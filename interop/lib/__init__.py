"""What the numbered cases share: places, processes, peers, users, flows."""
