"""Credentials of providers: keys read again, tokens of clouds fetched, both written where Envoy reads them."""
