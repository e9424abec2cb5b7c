"""Baselines on SEAL's own calls, without hefw's engine: what a careful script would do."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import _sealapi_cpp as seal
import numpy as np
from numpy.typing import NDArray

from hefw.backends.rns import loops
from hefw.core.diagonals import LinearCost, transform
from hefw.core.graph import Affine, Graph, Polynomial, features
from hefw.core.layout import Layout, next_power_of_two, periodic
from hefw.core.linear import Transform
from hefw.core.program import Program, SquareOp
from hefw.core.runner import Runner

Array = NDArray[np.float64]


class Replay:
    """The very calls that an engine made for one step, in a flat loop: of the library, and of loops on its memory."""

    def __init__(self, engine: Runner, run: Callable[[], Any]) -> None:
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], bool]] = []
        self._alive: list[Any] = []  # memory that loops are told by its address
        evaluator: Any = engine.evaluator
        with ExitStack() as stack:
            for holder, name in ((evaluator, "_evaluator"), (evaluator._context, "encoder")):
                self._replaced(stack, holder, name, _Recorder(getattr(holder, name), self._calls))
            self._replaced(stack, loops, "_call", self._loop)
            self._take_part = loops._take_part
            self._replaced(stack, loops, "_take_part", self._job)
            self._blank = evaluator._residues.blank
            self._replaced(stack, evaluator._residues, "blank", self._new)
            run()

    def __call__(self) -> float:
        """Processor seconds for all calls."""
        started = time.process_time()
        for method, arguments, adds in self._calls:
            if adds:  # SEAL compares scales exactly; a script would set them as well
                arguments[1].scale = arguments[0].scale
            method(*arguments)
        return time.process_time() - started

    @staticmethod
    def _replaced(stack: ExitStack, holder: Any, name: str, value: Any) -> None:
        stack.callback(setattr, holder, name, getattr(holder, name))
        setattr(holder, name, value)

    def _loop(self, name: str, *arguments: Any) -> None:
        function, casts = loops._loaded()[1][name]
        numbers = tuple(cast(given) for cast, given in zip(casts, arguments, strict=True))
        self._alive.append(arguments)
        self._calls.append((function, numbers, False))
        function(*numbers)

    def _job(self, number: int, job: loops.Job) -> None:
        self._alive.append(job)
        self._calls += [(job.meeting.fill, (0,), False), (loops._loaded()[1]["run"][0], job.numbers(number), False)]
        self._take_part(number, job)

    def _new(self, *arguments: Any) -> Any:
        made = self._blank(*arguments)
        self._alive.append(made)
        self._calls.append((self._blank, arguments, False))
        return made


class _Recorder:
    def __init__(self, real: Any, calls: list[Any]) -> None:
        self._real, self._calls = real, calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._real, name)

        def call(*arguments: Any) -> Any:
            self._calls.append((method, arguments, name.startswith("add")))
            return method(*arguments)

        return call


@dataclass(frozen=True)
class Layer:
    """One operation of a raw loop: transforms whose results add up, a bias (ciphertexts, slots), and scalar terms; or a
    square of `square`."""

    name: str
    parts: tuple[tuple[tuple[str, ...], Transform], ...]
    scalars: tuple[tuple[str, float], ...]
    bias: Array
    square: str | None = None


def layers_of_program(program: Program, labels: dict[str, Array]) -> list[Layer]:
    """The program's own transforms: layouts chosen by cost, sources merged, partial sums folded."""
    layers = []
    for op in program.step:
        if isinstance(op, SquareOp):
            shift = np.zeros(op.layout.features) if op.shift is None else op.shift
            layers.append(Layer(op.name, (), (), op.layout.spread(shift), op.source))
            continue
        bias = np.zeros(op.layout.features) if op.bias is None else op.bias[0]
        slots = op.layout.spread(bias) + (op.layout.pack(labels[op.name]) if op.name in labels else 0.0)
        assert op.transform is not None
        scalars = tuple((s.value, float(s.factors[0])) for s in op.scalars)
        layers.append(Layer(op.name, ((op.sources, op.transform),), scalars, slots))
    return layers


def layers_of_graph(graph: Graph, labels: dict[str, Array], slots: int) -> tuple[list[Layer], dict[str, Layout]]:
    """Each matrix by itself as generalised diagonals of tensors in their usual order, by baby and giant steps."""
    batch = slots // max(next_power_of_two(features(node)) for node in graph.nodes.values())
    layouts = {n: periodic(np.arange(features(node)), batch, slots) for n, node in graph.nodes.items()}
    cost = LinearCost(1.0, 0.0)
    layers = []
    for name, node in graph.nodes.items():
        if isinstance(node, Polynomial):
            shift = layouts[name].pack(np.repeat(node.coefficients[:1], batch, axis=0))
            layers.append(Layer(name, (), (), shift, node.source))
        elif isinstance(node, Affine):
            often = [t for t in node.terms if t.source != "label"]
            bias = np.repeat(node.bias[:1], batch, axis=0) + labels.get(name, 0.0)
            parts = tuple(
                ((t.source,), transform([(t.matrix, layouts[t.source])], layouts[name], cost, most_folds=0))
                for t in often
                if t.factors is None
            )
            scalars = tuple((t.source, float(t.factors[0])) for t in often if t.factors is not None)
            layers.append(Layer(name, parts, scalars, layouts[name].pack(bias)))
    return layers, layouts


def _steps(part: Transform) -> set[int]:
    """Rotations of a transform, each by a key of its own."""
    giants = {group.giant for groups in part.outputs for group in groups}
    return giants.union(part.folds, *part.babies)


class PlainChain:
    """A raw loop over SEAL's calls with a rescale after every layer: one prime of 32 bits a level, at 128 bits.

    Keys are made and weights encoded beforehand, as for the engine. Labels enter as a plaintext bias, which only makes
    this baseline faster.
    """

    SCALE = 2.0**32

    def __init__(self, n: int, layers: list[Layer], latent: Array) -> None:
        self.layers = layers
        depth = len(layers)
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(n)
        parameters.set_coeff_modulus(seal.CoeffModulus.Create(n, [45, *([32] * depth), 45]))
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        assert self.context.parameters_set(), "the baseline must run at 128 bits too"
        generator = seal.KeyGenerator(self.context)
        self.relinearisation, self.galois = seal.RelinKeys(), seal.GaloisKeys()
        generator.create_relin_keys(self.relinearisation)
        steps = {step for layer in layers for _, part in layer.parts for step in _steps(part)} - {0}
        generator.create_galois_keys([pow(3, step, 2 * n) for step in sorted(steps)], self.galois)
        self.encryptor = seal.Encryptor(self.context, generator.secret_key())
        self.decryptor = seal.Decryptor(self.context, generator.secret_key())
        self.evaluator, self.encoder = seal.Evaluator(self.context), seal.CKKSEncoder(self.context)
        self.ids = []
        data = self.context.first_context_data()
        for _ in range(depth + 1):
            self.ids.append(data.parms_id())
            data = data.next_context_data()
        self.depths = {"latent": 0}
        self.weights: dict[str, list[list[Any]]] = {}
        self.biases: dict[str, list[Any]] = {}
        for layer in layers:
            sources = [name for names, _ in layer.parts for name in names] + [name for name, _ in layer.scalars]
            level = max(self.depths[name] for name in ([layer.square] if layer.square else sources))
            self.weights[layer.name] = [
                [self._encode(part.weight(k), level) for k in range(len(part.weights))] for _, part in layer.parts
            ]
            self.biases[layer.name] = [self._encode(row, level, self.SCALE**2) for row in layer.bias]
            self.depths[layer.name] = level + 1
        self.latent = [self._encrypt(row) for row in latent]

    def __call__(self) -> tuple[float, Array]:
        """(processor seconds of one step, decrypted output slots)."""
        started = time.process_time()
        values: dict[str, list[Any]] = {"latent": self.latent}
        for layer in self.layers:
            done = self._square(layer, values) if layer.square else self._linear(layer, values)
            values[layer.name] = [self._rescaled(ct) for ct in done]
        seconds = time.process_time() - started
        return seconds, np.stack([self._decrypt(ct) for ct in values[self.layers[-1].name]])

    def _square(self, layer: Layer, values: dict[str, list[Any]]) -> list[Any]:
        out = []
        assert layer.square is not None
        for ct, shift in zip(values[layer.square], self.biases[layer.name], strict=True):
            squared = seal.Ciphertext()
            self.evaluator.square(ct, squared)
            self.evaluator.relinearize_inplace(squared, self.relinearisation)
            self.evaluator.add_plain_inplace(squared, shift)
            out.append(squared)
        return out

    def _linear(self, layer: Layer, values: dict[str, list[Any]]) -> list[Any]:
        evaluator, level = self.evaluator, self.depths[layer.name] - 1
        totals: list[Any] = [None] * len(layer.bias)

        def add(number: int, ct: Any) -> None:
            if totals[number] is None:
                totals[number] = ct
            else:
                evaluator.add_inplace(totals[number], ct)

        for (names, part), weights in zip(layer.parts, self.weights[layer.name], strict=True):
            inputs = [self._at(ct, level) for name in names for ct in values[name]]
            rotated = [
                {step: self._rotate(ct, step) for step in steps} for ct, steps in zip(inputs, part.babies, strict=True)
            ]
            for number, groups in enumerate(part.outputs):
                partial = None
                for group in groups:
                    inner, product = seal.Ciphertext(), seal.Ciphertext()
                    for k, term in enumerate(group.terms):
                        target = product if k else inner
                        evaluator.multiply_plain(rotated[term.source][term.baby], weights[term.weight], target)
                        if k:
                            evaluator.add_inplace(inner, product)
                    inner = self._rotate(inner, group.giant)
                    if partial is None:
                        partial = inner
                    else:
                        evaluator.add_inplace(partial, inner)
                for step in part.folds:
                    evaluator.add_inplace(partial, self._rotate(partial, step))
                add(number, partial)
        for name, factor in layer.scalars:
            for number, ct in enumerate(values[name]):
                plain, product = seal.Plaintext(), seal.Ciphertext()
                self.encoder.encode(factor, self.ids[level], self.SCALE, plain)
                evaluator.multiply_plain(self._at(ct, level), plain, product)
                add(number, product)
        for ct, bias in zip(totals, self.biases[layer.name], strict=True):
            evaluator.add_plain_inplace(ct, bias)
        return totals

    def _rotate(self, ct: Any, step: int) -> Any:
        if step == 0:
            return ct
        out = seal.Ciphertext()
        self.evaluator.rotate_vector(ct, step, self.galois, out)
        return out

    def _at(self, ct: Any, level: int) -> Any:
        out = seal.Ciphertext()
        self.evaluator.mod_switch_to(ct, self.ids[level], out)
        return out

    def _rescaled(self, ct: Any) -> Any:
        self.evaluator.rescale_to_next_inplace(ct)
        ct.scale = self.SCALE  # primes differ from 2^32 by a millionth: the usual shortcut
        return ct

    def _encode(self, values: Any, level: int, scale: float = SCALE) -> Any:
        plain = seal.Plaintext()
        self.encoder.encode(
            values.tolist() if isinstance(values, np.ndarray) else values, self.ids[level], scale, plain
        )
        return plain

    def _encrypt(self, slots: Array) -> Any:
        out = seal.Ciphertext()
        self.encryptor.encrypt_symmetric(self._encode(slots, 0), out)
        return out

    def _decrypt(self, ct: Any) -> Array:
        plain = seal.Plaintext()
        self.decryptor.decrypt(ct, plain)
        return np.array(self.encoder.decode_double(plain))
