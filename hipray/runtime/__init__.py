"""What computes a network's answers, on what, with how many threads and how much memory."""
