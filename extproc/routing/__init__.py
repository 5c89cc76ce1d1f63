"""Routing: from the name a client asks for to the targets to try, in order."""
