"""Types that all rooms share: the exchange, its parts, refusals, and the headers between the attachments."""
