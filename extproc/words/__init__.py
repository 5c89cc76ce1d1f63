"""The types that every room shares: the exchange, its parts, refusals, and the headers between the attachments."""
