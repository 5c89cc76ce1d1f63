"""The way of a request: the two attachments and the stages of an exchange."""
