"""How messages look to people. Pure functions from messages to text: no files, no colours, no printing."""
