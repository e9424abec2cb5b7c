"""`ModelConformance`: what every model must do, as tests that its author inherits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hefw import plugins
from hefw.core.errors import HefwError, SchedulerError
from hefw.core.graph import Graph, features
from hefw.core.lower import Request, lower
from hefw.models.base import Model

Array = NDArray[np.float64]

_GIVEN = pytest.StashKey["Given"]()


class Given:
    """A model, a scheduler, and what is made from them once a class: a graph and inputs to run it on."""

    def __init__(self, model: Model, scheduler: Any, steps: int, images: int) -> None:
        self.model, self._scheduler, self.steps = model, scheduler, steps
        rng = np.random.default_rng(0)
        noise = float(getattr(scheduler, "init_noise_sigma", 1.0))
        self.start = noise * rng.normal(size=(images, *model.latent_shape))
        self.labels = np.arange(images, dtype=np.int64) % model.labels

    @property
    def scheduler(self) -> Any:
        """A scheduler that nobody has used yet."""
        return copy.deepcopy(self._scheduler)

    @cached_property
    def graph(self) -> Graph:
        return self.model.graph(self.scheduler, self.steps)

    @cached_property
    def inputs(self) -> dict[str, Array]:
        return self.model.inputs(self.start.copy(), self.labels.copy())

    @cached_property
    def trajectory(self) -> list[Array]:
        """The latents after each step, by the graph."""
        outputs = self.graph.outputs
        return [
            self.model.latents({name: values[o.node] * o.factors[step] for name, o in outputs.items()})
            for step, values in enumerate(self.graph.trajectory(self.inputs))
        ]


class ModelConformance:
    """Subclass it with a fixture `model`; one that returns the same object every time saves time.

    May be overridden:

    - `scheduler`: a fixture; by default diffusers' DDIMScheduler as `model.scheduler` makes it;
    - `refused`: a fixture; schedulers that `model.graph` must refuse, each with a word that the message must contain;
    - `steps`, `images`: of the schedule that is run;
    - `tolerance`: the largest difference from the twin in any entry of any step's latent;
    - `max_depth`: multiplicative depth of the program, in rescales, that the author promises;
    - `precision_db`: the precision for which the program is planned, at 128 bits.
    """

    steps = 4
    images = 4
    tolerance = 1e-4
    max_depth = 16
    precision_db = 40.0

    @pytest.fixture
    def model(self) -> Model:
        """The model under test."""
        raise NotImplementedError("a subclass of ModelConformance needs a fixture 'model' that returns a Model")

    @pytest.fixture
    def scheduler(self, model: Model) -> Any:
        """A scheduler whose update is linear."""
        from diffusers import DDIMScheduler

        return model.scheduler(DDIMScheduler, {})

    @pytest.fixture
    def refused(self, model: Model) -> Mapping[str, Any]:
        """Schedulers whose update is not linear, by a word of the message that refuses them."""
        from diffusers import DDIMScheduler, DDPMScheduler

        return {
            "clip_sample": model.scheduler(DDIMScheduler, {"clip_sample": True}),
            "stochastic": model.scheduler(DDPMScheduler, {"clip_sample": False}),
        }

    @pytest.fixture
    def given(self, request: pytest.FixtureRequest, model: Model, scheduler: Any) -> Given:
        """What is made from model and scheduler, once a class."""
        stash: pytest.Stash = request.node.getparent(pytest.Class).stash
        found = stash.get(_GIVEN, None)
        if found is None or found.model is not model:
            found = stash[_GIVEN] = Given(model, scheduler, self.steps, self.images)
        return found

    # -- what the model says of itself --------------------------------------------------------------------------------

    def test_it_has_a_name_labels_and_a_latent_shape(self, model: Model) -> None:
        assert model.name
        assert model.labels >= 1
        assert len(model.latent_shape) == 3
        assert all(isinstance(size, int) and size > 0 for size in model.latent_shape)

    # -- the graph ----------------------------------------------------------------------------------------------------

    def test_the_graph_fits_the_schedule_and_the_inputs(self, given: Given) -> None:
        graph = given.graph
        assert isinstance(graph, Graph)
        assert graph.steps == given.steps
        assert set(graph.inputs) == set(given.inputs)
        for name, node in graph.inputs.items():
            assert given.inputs[name].shape == (self.images, features(node)), name
            assert given.inputs[name].dtype == np.float64, name
        assert set(graph.calibration) == set(graph.inputs), "each input needs public calibration samples"
        fed = {output.feedback for output in graph.outputs.values()} - {None}
        often = {name for name, node in graph.inputs.items() if not node.once and node.previous is None}
        assert fed == often, "what changes from step to step must be fed back, and nothing else"

    def test_the_graph_is_the_same_every_time(self, given: Given) -> None:
        scheduler = given.scheduler
        before = {name: copy.deepcopy(value) for name, value in vars(scheduler).items()}
        assert given.model.graph(scheduler, given.steps).digest == given.graph.digest
        assert vars(scheduler).keys() == before.keys()
        assert repr(vars(scheduler)) == repr(before), "graph must not change the scheduler"

    def test_the_graph_survives_a_file(self, given: Given, tmp_path: Path) -> None:
        given.graph.save(tmp_path / "graph")
        loaded = Graph.load(tmp_path / "graph")
        assert loaded.digest == given.graph.digest
        for name, value in loaded.evaluate(0, given.inputs).items():
            assert np.array_equal(value, given.graph.evaluate(0, given.inputs)[name]), name

    def test_the_graph_is_the_twin_at_every_step(self, given: Given) -> None:
        start, labels = given.start.copy(), given.labels.copy()
        watched: dict[int, Array] = {}
        final = given.model.twin(
            start, labels, given.scheduler, given.steps, lambda step, x: watched.update({step: np.array(x)})
        )
        assert np.array_equal(start, given.start), "the twin must leave its latents alone"
        assert list(watched) == list(range(given.steps)), "watch must be called once after each step"
        assert np.array_equal(watched[given.steps - 1], final)
        for step, found in enumerate(given.trajectory):
            assert found.shape == final.shape
            difference = float(np.abs(found - watched[step]).max())
            assert difference < self.tolerance, f"step {step}: the graph differs from the twin by {difference:.2g}"

    # -- inputs, labels, latents --------------------------------------------------------------------------------------

    def test_latents_is_the_inverse_of_inputs(self, given: Given) -> None:
        outputs = {name: given.inputs[o.feedback] for name, o in given.graph.outputs.items() if o.feedback}
        back = given.model.latents(outputs)
        assert back.shape == given.start.shape
        assert np.array_equal(back, given.start)

    def test_every_label_is_an_input_of_its_own(self, given: Given) -> None:
        model = given.model
        start = np.repeat(given.start[:1], model.labels, axis=0)
        found = model.inputs(start, np.arange(model.labels))
        rows = np.concatenate([found[name] for name in sorted(found)], axis=1)
        assert len(np.unique(rows, axis=0)) == model.labels

    def test_labels_out_of_range_are_refused(self, given: Given) -> None:
        for label in (given.model.labels, -1):
            with pytest.raises(HefwError, match=str(label)):
                given.model.inputs(given.start[:1], np.array([label]))

    def test_images_are_finite_and_the_same_every_time(self, given: Given) -> None:
        images = given.model.decode(given.trajectory[-1])
        assert images.ndim == 4
        assert len(images) == self.images
        assert np.isfinite(images).all()
        assert np.array_equal(images, given.model.decode(given.trajectory[-1]))

    # -- schedulers ---------------------------------------------------------------------------------------------------

    def test_schedulers_that_are_not_linear_are_refused_by_name(self, model: Model, refused: Mapping[str, Any]) -> None:
        for word, scheduler in refused.items():
            with pytest.raises(SchedulerError, match=word) as caught:
                model.graph(scheduler, self.steps)
            assert type(scheduler).__name__ in str(caught.value)

    def test_a_schedule_without_steps_is_refused(self, given: Given) -> None:
        with pytest.raises(SchedulerError, match="0"):
            given.model.graph(given.scheduler, 0)

    # -- the program --------------------------------------------------------------------------------------------------

    def test_it_lowers_at_128_bits_within_its_depth(self, given: Given) -> None:
        """Planned on the simulator, whose primes are as those of a library."""
        registry = plugins.registry()
        backend = registry.load("backend", "simulator")(registry.entry("backend", "simulator").options())
        program = lower(given.graph, backend, Request(precision_db=self.precision_db))
        interface = program.interface
        assert interface.params.params.security_bits >= 128
        assert 0 < interface.depth <= self.max_depth, f"the program has a depth of {interface.depth}"
        assert interface.forecast_db >= self.precision_db
        assert interface.steps == given.steps
