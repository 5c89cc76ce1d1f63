"""Access: keys, tokens and certificates of consumers, and their objects at providers."""
