"""The way of a request: both attachments, and the stages of an exchange."""
