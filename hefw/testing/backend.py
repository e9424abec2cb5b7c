"""`BackendConformance`: what every backend must do, as tests that its author inherits."""

from __future__ import annotations

import pytest

from hefw.core.backend import Backend, Ciphertext
from hefw.core.params import CkksParams
from hefw.testing import parties as parts
from hefw.testing.parties import Parties, Precision
from hefw.testing.suites.concurrency import Concurrency
from hefw.testing.suites.declarations import Declarations
from hefw.testing.suites.engines import Engines
from hefw.testing.suites.isolation import Isolation
from hefw.testing.suites.keys import Keys
from hefw.testing.suites.operations import Operations
from hefw.testing.suites.payloads import Payloads
from hefw.testing.suites.precision import Accuracy
from hefw.testing.suites.refusals import Refusals
from hefw.testing.suites.resources import Resources

_MADE = pytest.StashKey[dict[object, Parties]]()


class BackendConformance(
    Operations, Refusals, Keys, Payloads, Isolation, Declarations, Accuracy, Engines, Concurrency, Resources
):
    """Subclass it with a fixture `backend`; nothing else is needed.

    May be overridden:

    - `precision`: the bounds that the backend promises, a `hefw.testing.parties.Precision`;
    - `params`: a fixture; parameters for single operations, with at least 3 levels of about `scale_bits` and a first
      prime at least 10 bits larger. A small insecure ring that the backend offers, if not given;
    - `program_params`: a fixture; parameters with 5 levels for a small UNet;
    - `target`: a fixture; where another process imports the backend from, as in an `Entry`: "package.module:Class". The
      backend's own class, if not given. It is called with the options of the fixture's backend.
    """

    precision: Precision = Precision()

    @pytest.fixture
    def backend(self) -> Backend:
        """The backend under test."""
        raise NotImplementedError("a subclass of BackendConformance needs a fixture 'backend' that returns a Backend")

    @pytest.fixture
    def params(self, backend: Backend) -> CkksParams:
        """Parameters for single operations."""
        return parts.small_params(backend.capabilities)

    @pytest.fixture
    def program_params(self, backend: Backend) -> CkksParams:
        """Parameters for a small program."""
        return parts.program_params(backend.capabilities)

    @pytest.fixture
    def target(self, backend: Backend) -> str:
        """Where another process imports the backend from."""
        return f"{type(backend).__module__}:{type(backend).__qualname__}"

    @pytest.fixture
    def parties(self, request: pytest.FixtureRequest, backend: Backend, params: CkksParams) -> Parties:
        """Both sides with their keys; made once a class, because keys take time."""
        node = request.node.getparent(pytest.Class)
        made: dict[object, Parties] = node.stash.setdefault(_MADE, {})
        key = (type(backend), repr(backend.options), params)
        if key not in made:
            made[key] = parts.make_parties(backend, params, self.precision)
        return made[key]

    @pytest.fixture
    def a(self, parties: Parties) -> Ciphertext:
        """The encryption of `parties.x` at the top level."""
        return parties.encrypt(parties.x)

    @pytest.fixture
    def b(self, parties: Parties) -> Ciphertext:
        """The encryption of `parties.y` at the top level."""
        return parties.encrypt(parties.y)
