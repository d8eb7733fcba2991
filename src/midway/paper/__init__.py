"""Tables of the paper: their rows as commands, and the paper's numbers."""
