"""Private swarms: which nodes are in, and what they and their coordinator send each other."""
