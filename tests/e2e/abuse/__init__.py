"""Tables of abusive requests, a module for each family. The tests that use a table state the expected outcome."""

from __future__ import annotations

from tests.e2e.abuse.bodies import bodies, fields
from tests.e2e.abuse.garbage import garbage
from tests.e2e.abuse.keys import keys
from tests.e2e.abuse.models import models
from tests.e2e.abuse.passed import passed
from tests.e2e.abuse.paths import paths
from tests.e2e.abuse.payloads import payloads

REFUSED = [*keys(), *bodies(), *fields(), *models(), *paths(), *payloads()]
GARBAGE = list(garbage())
PASSED = list(passed())
