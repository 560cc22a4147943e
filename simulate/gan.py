"""A style-based GAN of small images, with or without classes, that trains in half a minute on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from jaxtyping import Float, Float32, Int

from poolproof.errors import InputError
from poolproof.simulate.augmentation import MOST, adjust, augment
from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.denoiser import threads, torch_generator, unpack
from poolproof.simulate.generator import AbstractGenerator, GeneratorDiverged, Samples, State
from poolproof.simulate.style_networks import (
    GROUP,
    Layout,
    discriminator_shapes,
    generator_shapes,
    initial_weights,
    map_latents,
    render,
    score,
    to_arrays,
)

if TYPE_CHECKING:
    import torch

Arrays = Mapping[str, Float32[np.ndarray, " *shape"]]
"""Weights by name."""

DEVICES: Final = ("auto", "cpu", "cuda")
PRECISIONS: Final = ("float32", "bfloat16")

SAMPLING_BATCH: Final = 512
"""Images that are rendered together; bounds memory."""

CENTRE_DRAWS: Final = 4096
"""Latent vectors per class whose mean style is the centre of truncation."""

ADJUST_INTERVAL: Final = 4
"""Steps between changes of the probability of augmentation."""

LARGEST: Final = 1024
"""Height and width of the largest images."""


@dataclass(frozen=True)
class GanSpec:
    """Options of a style-based GAN. The defaults suit a thousand images of 8 x 8 pixels.

    Attributes:
        latent_dim: length of latent vectors and styles.
        n_mapping: layers of the mapping network.
        width: channels of the layers up to 16 x 16 pixels; each doubling beyond halves them.
        n_steps: training steps; each updates discriminator and generator once.
        batch_size: images per training step, drawn with replacement.
        learning_rate: step size of Adam.
        r1_gamma: weight of the penalty on the discriminator's slope at training images, 0 or more.
        r1_interval: steps between penalties; each then counts as many times.
        ema_decay: in [0, 1); share of the running mean of the generator's weights that a step leaves in place.
            Samples use the running mean.
        augment_target: mean sign of the discriminator's logits of training images that augmentation aims at,
            in [0, 1]; 0 is no augmentation. Lower targets augment more.
        augment_speed: change of the probability of augmentation per thousand training images, above 0.
        n_threads: processor threads. Sums depend on how work is split, so another number gives other bytes.
        device: `cpu`, `cuda`, or `auto` for `cuda` where there is one. Bytes are promised to repeat on `cpu` alone.
        precision: `float32`, or `bfloat16` for mixed precision, which `cuda` alone uses.
    """

    latent_dim: int = 64
    n_mapping: int = 2
    width: int = 32
    n_steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 2e-3
    r1_gamma: float = 0.1
    r1_interval: int = 8
    ema_decay: float = 0.99
    augment_target: float = 0.6
    augment_speed: float = 0.05
    n_threads: int = 1
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in (
            "latent_dim", "n_mapping", "width", "n_steps", "batch_size", "r1_interval", "n_threads"
        ):  # fmt: skip
            check_count(name, getattr(self, name), 1)
        if self.batch_size % GROUP:
            raise InputError(
                f"batch_size: got {self.batch_size}, allowed multiples of {GROUP}, the discriminator's groups; round it"
            )
        check_range("learning_rate", self.learning_rate, 0, 1, above=True)
        check_range("r1_gamma", self.r1_gamma, 0, 1e6)
        check_range("augment_target", self.augment_target, 0, 1)
        check_range("augment_speed", self.augment_speed, 0, 1000, above=True)
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay: got {self.ema_decay}, allowed from 0 to below 1; 0.99 is usual")
        if self.device not in DEVICES:
            raise InputError(f"device: got {self.device!r}, allowed {', '.join(DEVICES)}; choose one")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision: got {self.precision!r}, allowed {', '.join(PRECISIONS)}; choose one")
        if self.precision == "bfloat16" and self.device == "cpu":
            raise InputError("precision: got 'bfloat16', allowed 'float32' on device 'cpu'; choose that")


@final
@dataclass(frozen=True, eq=False)
class GanModel:
    """A fitted GAN: all that sampling, and training on from here, need.

    Attributes:
        layout: sizes of the networks.
        shape: of one image, without the count.
        mean: running means of the generator's weights by name; samples use these.
        generator: the generator's weights after the last step.
        discriminator: the discriminator's weights after the last step.
        centre: mean style of each class, one row in all without labels; truncation pulls styles there.
        label_shares: frequency of each class in training, by weight; None if there were no labels.
        augment_p: probability of augmentation after the last step.
    """

    layout: Layout
    shape: tuple[int, ...]
    mean: Arrays
    generator: Arrays
    discriminator: Arrays
    centre: Float32[np.ndarray, "k d"]
    label_shares: Float[np.ndarray, " k"] | None
    augment_p: float


@final
@dataclass(frozen=True, eq=False)
class GanGenerator(AbstractGenerator):
    """The style-based GAN as a generator of a loop.

    Attributes:
        spec: its options.
        model: what was fitted; None before.
        is_bytes: whether the training images were bytes, so that samples are too.
    """

    spec: GanSpec = GanSpec()
    model: GanModel | None = None
    is_bytes: bool = False

    def fit(
        self,
        images: Samples,
        labels: Int[np.ndarray, " n"] | None,
        *,
        weights: Float[np.ndarray, " n"] | None = None,
        start: AbstractGenerator | None = None,
        rng: np.random.Generator,
    ) -> GanGenerator:
        """A generator fitted to images n h w or n h w c; see `fit_gan`.

        `start` hands on both networks, the running mean and the probability of augmentation; the optimisers
        begin anew.

        Raises:
            InputError: images, labels or weights that cannot be trained on, or a start of another kind.
            GeneratorDiverged: the weights became infinite or NaN.
        """
        is_bytes = images.dtype == np.uint8
        if start is not None and not isinstance(start, GanGenerator):
            raise InputError(f"start: got a {type(start).__name__}, allowed a GanGenerator; give one or None")
        if start is not None and start.model is None:
            raise InputError("start: got a generator that was not fitted, allowed a fitted one; fit it first")
        pixels = images / np.float32(127.5) - np.float32(1) if is_bytes else images
        model = fit_gan(
            pixels, labels, self.spec, weights=weights, start=None if start is None else start.model, rng=rng
        )
        return GanGenerator(self.spec, model, is_bytes)

    def sample(
        self,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Samples, Int[np.ndarray, " n"] | None]:
        """New images and their labels; floats are clipped to [-1, 1].

        Args:
            n: number of images.
            sampling_bias: psi in (0, 1]. Styles w become m + psi (w - m), m the mean style of their class (of all
                without labels); 1 is no truncation.
            labels: class of each image; None draws them at the frequencies of training.
            rng: seeds latent vectors and noise.

        Raises:
            InputError: the generator was not fitted, or an argument is out of range.
            GeneratorDiverged: samples that are not finite.

        Source: Karras et al., "A style-based generator architecture for GANs", 2019, appendix B; psi as the
            sampling bias as in Alemohammad et al., "Self-consuming generative models go MAD", 2023, section 2.
        """
        model = self._fitted()
        check_count("n", n, 1)
        check_range("sampling_bias", sampling_bias, 0, 1, above=True)
        classes = _check_labels(model, labels, n)
        if model.label_shares is not None and labels is None:
            labels = classes = rng.choice(len(model.label_shares), size=n, p=model.label_shares)
        import torch

        with torch.no_grad(), threads(self.spec.n_threads):
            device = _device(self.spec)
            generator = torch_generator(rng)
            mean = _to_tensors(model.mean, device)
            centre = torch.tensor(model.centre, device=device)
            batches = []
            for part in torch.split(torch.tensor(classes, dtype=torch.int64), SAMPLING_BATCH):
                part = part.to(device)
                latents = _normal(len(part), model.layout.latent_dim, generator).to(device)
                with _autocast(self.spec, device):
                    styles = map_latents(mean, latents, part)
                    if sampling_bias != 1:
                        styles = torch.lerp(centre[part], styles.float(), sampling_bias)
                    batches.append(render(mean, model.layout, styles, generator).float().cpu())
            pixels = torch.cat(batches)
            if not bool(torch.isfinite(pixels).all()):
                raise GeneratorDiverged("samples are not finite: the weights have diverged")
            found = pixels.clamp(-1, 1).permute(0, 2, 3, 1).reshape(n, *model.shape).numpy()
        return np.rint((found + 1) * 127.5).astype(np.uint8) if self.is_bytes else found, labels

    def state(self) -> State:
        """Running mean, both networks, centre and shares by name: what sampling and a warm start need."""
        model = self._fitted()
        state = {
            f"{part}.{name}": value
            for part in ("mean", "generator", "discriminator")
            for name, value in getattr(model, part).items()
        } | {
            "centre": model.centre,
            "shape": np.array(model.shape, np.int64),
            "is_bytes": np.array([self.is_bytes], np.uint8),
            "augment_p": np.array([model.augment_p]),
        }
        return state if model.label_shares is None else state | {"label_shares": model.label_shares}

    def restore(self, state: State) -> GanGenerator:
        """A generator of these options, fitted as the one that `state` was taken of.

        Raises:
            InputError: arrays are missing or have shapes that these options do not make.
        """
        shape = tuple(int(side) for side in _take(state, "shape"))
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise InputError(f"state: got images of shape {shape}, allowed h w or h w c; take it anew")
        shares = state.get("label_shares")
        layout = _layout(self.spec, shape, 0 if shares is None else len(shares))
        networks: dict[str, dict[str, np.ndarray]] = {}
        for part, shapes in (
            ("mean", generator_shapes(layout)),
            ("generator", generator_shapes(layout)),
            ("discriminator", discriminator_shapes(layout)),
        ):
            networks[part] = {name: _take(state, f"{part}.{name}", at) for name, at in shapes.items()}
        model = GanModel(
            layout,
            shape,
            networks["mean"],
            networks["generator"],
            networks["discriminator"],
            _take(state, "centre", (max(1, layout.n_classes), layout.latent_dim)),
            shares,
            float(_take(state, "augment_p", (1,))[0]),
        )
        return GanGenerator(self.spec, model, bool(_take(state, "is_bytes", (1,))[0]))

    def _fitted(self) -> GanModel:
        if self.model is None:
            raise InputError("generator: not fitted yet; call fit first and use what it returns")
        return self.model


def fit_gan(
    pixels: Float[np.ndarray, " n *shape"],
    labels: Int[np.ndarray, " n"] | None,
    spec: GanSpec,
    *,
    weights: Float[np.ndarray, " n"] | None = None,
    start: GanModel | None = None,
    rng: np.random.Generator,
    on_step: Callable[[int, float, float], None] | None = None,
) -> GanModel:
    """A GAN fitted to images.

    The same images, options, state of `rng` and versions of libraries give the same bytes on one kind of processor,
    whatever number of threads is set elsewhere. No global random state is read or changed.

    Args:
        pixels: in [-1, 1]: n h w, or n h w c.
        labels: class of each image, from 0; None trains without classes.
        spec: options.
        weights: of each image, 0 or more: images are drawn into batches with probabilities in these ratios.
        start: a model of the same layout to go on from.
        rng: seeds weights, latent vectors, noise, augmentation and the order of the images.
        on_step: called after each step with its number, from 1, and the losses of discriminator and generator.

    Raises:
        InputError: images, labels, weights, a start or a device that cannot be used.
        GeneratorDiverged: the weights became infinite or NaN.

    Source: Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020 (networks, lazy
        regularisation in section 3.1); Goodfellow et al., "Generative adversarial nets", 2014 (loss that does not
        saturate); Mescheder et al., "Which training methods for GANs do actually converge?", 2018, equation 9 (R1).
    """
    shares, layout = _check_data(pixels, labels, weights, spec, start)
    import torch

    device = _device(spec)
    batch = spec.batch_size
    with torch.enable_grad(), threads(spec.n_threads):
        random = torch_generator(rng)
        images = pixels.reshape(len(pixels), layout.height, layout.width, layout.n_channels)
        real_images = torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
        classes = torch.tensor(np.zeros(len(images)) if labels is None else labels, dtype=torch.int64)
        draws = torch.tensor(np.cumsum(np.ones(len(images)) if weights is None else weights, dtype=np.float64))
        last_row = int(torch.searchsorted(draws, draws[-1]))  # rounding could reach rows of weight 0 behind it
        shapes_g, shapes_d = generator_shapes(layout), discriminator_shapes(layout)
        # one vector per network: one call per update instead of one per layer
        vector_g, vector_d, mean = (
            initial_weights(shapes, random) if start is None else _to_vector(getattr(start, part), shapes)
            for shapes, part in ((shapes_g, "generator"), (shapes_d, "discriminator"), (shapes_g, "mean"))
        )
        vector_g, vector_d = (vector.to(device).requires_grad_() for vector in (vector_g, vector_d))
        mean = vector_g.detach().clone() if start is None else mean.to(device)
        adam_g, adam_d = (
            torch.optim.Adam([vector], lr=spec.learning_rate, betas=(0.0, 0.99), eps=1e-8, fused=True)
            for vector in (vector_g, vector_d)
        )
        p = 0.0 if start is None or spec.augment_target == 0 else start.augment_p
        signs = torch.zeros((), device=device)
        for step in range(1, spec.n_steps + 1):
            places = torch.rand(batch, generator=random, dtype=torch.float64) * draws[-1]
            rows = torch.searchsorted(draws, places, right=True).clamp(max=last_row)
            real, kinds = real_images[rows].to(device), classes[rows].to(device)
            latents = _normal(2 * batch, layout.latent_dim, random).to(device)

            net_g, net_d = unpack(vector_g, shapes_g), unpack(vector_d, shapes_d)
            real = augment(real, p, random)
            with _autocast(spec, device):
                with torch.no_grad():
                    fake = render(net_g, layout, map_latents(net_g, latents[:batch], kinds), random)
                both = torch.cat([real, augment(fake.float(), p, random)])
                logits = score(net_d, layout, both, kinds.repeat(2)).float()
            loss_d = _softplus(-logits[:batch]) + _softplus(logits[batch:])
            signs += logits[:batch].detach().sign().mean()
            penalty: Any = 0
            if spec.r1_gamma > 0 and (step - 1) % spec.r1_interval == 0:
                # in full precision: squared gradients are small
                slope = r1_penalty(lambda x, net=net_d, k=kinds: score(net, layout, x, k), real)
                penalty = spec.r1_gamma / 2 * spec.r1_interval * slope
            _update(adam_d, vector_d, loss_d + penalty)

            net_d = unpack(vector_d.detach(), shapes_d)
            with _autocast(spec, device):
                fake = render(net_g, layout, map_latents(net_g, latents[batch:], kinds), random)
                loss_g = _softplus(-score(net_d, layout, augment(fake.float(), p, random), kinds))
            _update(adam_g, vector_g, loss_g)

            # early on a slow mean would hold on to the initial weights
            keep = min(spec.ema_decay, (1 + step) / (10 + step)) if start is None else spec.ema_decay
            mean.lerp_(vector_g.detach(), 1 - keep)
            if spec.augment_target > 0 and step % ADJUST_INTERVAL == 0:
                change = spec.augment_speed * batch * ADJUST_INTERVAL / 1000
                p = adjust(p, float(signs) / ADJUST_INTERVAL, target=spec.augment_target, change=change)
                signs.zero_()
            if on_step is not None:
                on_step(step, loss_d.item(), loss_g.item())
        if not all(bool(torch.isfinite(vector).all()) for vector in (mean, vector_g, vector_d)):
            raise GeneratorDiverged(f"the GAN's weights are not finite at learning_rate {spec.learning_rate}")
        net_mean = unpack(mean, shapes_g)
        with torch.no_grad():
            centre = [
                map_latents(net_mean, _normal(CENTRE_DRAWS, layout.latent_dim, random).to(device), kinds)
                for kinds in torch.arange(max(1, layout.n_classes)).repeat_interleave(CENTRE_DRAWS)
                .to(device).split(CENTRE_DRAWS)
            ]  # fmt: skip
            means = torch.stack([styles.mean(dim=0) for styles in centre]).cpu().numpy()
        found = (to_arrays(unpack(v, s)) for v, s in ((mean, shapes_g), (vector_g, shapes_g), (vector_d, shapes_d)))
        return GanModel(layout, pixels.shape[1:], *found, means, shares, p)


def r1_penalty(
    logits: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> torch.Tensor:
    """Mean over images of the squared norm of the logits' gradient with respect to the image, differentiable.

    Source: Mescheder et al., "Which training methods for GANs do actually converge?", 2018, equation 9, without
        gamma / 2.
    """
    import torch

    images = images.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(logits(images).sum(), images, create_graph=True)
    return slopes.square().flatten(1).sum(dim=1).mean()


def _check_data(
    pixels: Float[np.ndarray, " n *shape"],
    labels: Int[np.ndarray, " n"] | None,
    weights: Float[np.ndarray, " n"] | None,
    spec: GanSpec,
    start: GanModel | None,
) -> tuple[Float[np.ndarray, " k"] | None, Layout]:
    """Shares of the classes, and the layout of the networks."""
    if pixels.ndim not in (3, 4) or pixels.size == 0:
        raise InputError(f"images: got shape {pixels.shape}, allowed n h w or n h w c with none of them 0")
    if not (np.isfinite(pixels).all() and pixels.min() >= -1 and pixels.max() <= 1):
        raise InputError(
            f"images: got pixels in [{pixels.min():g}, {pixels.max():g}], allowed [-1, 1]; rescale them"
        )
    for name, values in (("labels", labels), ("weights", weights)):
        if values is not None and len(values) != len(pixels):
            raise InputError(f"{name}: got {len(values)}, allowed {len(pixels)}, one per image")
    if labels is not None and labels.min() < 0:
        raise InputError(f"labels: got {labels.min()}, allowed 0 or more; number the classes from 0")
    if weights is not None and not (
        np.isfinite(weights).all() and weights.min() >= 0 and 0 < weights.sum() < np.inf
    ):
        raise InputError("weights: got values or a sum out of range, allowed finite, 0 or more, not all 0")
    counts = None if labels is None else np.bincount(labels, weights)
    n_classes = 0 if counts is None else len(counts)
    if start is not None and counts is not None and n_classes < start.layout.n_classes:
        # a class may be missing from later samples
        n_classes = start.layout.n_classes
        counts = np.pad(counts, (0, n_classes - len(counts)))
    layout = _layout(spec, pixels.shape[1:], n_classes)
    if start is not None and start.layout != layout:
        raise InputError(f"start: got a model of {start.layout}, allowed one of {layout}; start from scratch")
    return None if counts is None else counts / counts.sum(), layout


def _check_labels(
    model: GanModel, labels: Int[np.ndarray, " n"] | None, n: int
) -> Int[np.ndarray, " n"]:
    """Row of the table of centres for each image."""
    if labels is None:
        return np.zeros(n, np.int64)
    n_classes = model.layout.n_classes
    if len(labels) != n:
        raise InputError(f"labels: got {len(labels)}, allowed n = {n}, one per image")
    if n_classes == 0:
        raise InputError("labels: got some, allowed None for a model fitted without; give None")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise InputError(
            f"labels: got {labels.min()} to {labels.max()}, allowed 0 to {n_classes - 1} as in training"
        )
    return labels


def _layout(spec: GanSpec, shape: tuple[int, ...], n_classes: int) -> Layout:
    if max(shape[:2]) > LARGEST:
        raise InputError(f"images: got {shape[0]} x {shape[1]} pixels, allowed to {LARGEST}; shrink them")
    channels = shape[2] if len(shape) == 3 else 1
    return Layout(shape[0], shape[1], channels, n_classes, spec.latent_dim, spec.n_mapping, spec.width)


def _take(state: State, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """An array of the state."""
    if name not in state:
        raise InputError(f"state: got no {name!r}, allowed what a GAN's state holds; take it anew")
    found = state[name]
    if shape is not None and found.shape != shape:
        raise InputError(f"state: got {name!r} of shape {found.shape}, allowed {shape}; use the same options")
    return found


def _device(spec: GanSpec) -> torch.device:
    import torch

    if spec.device == "cpu" or torch.cuda.is_available():
        return torch.device("cpu" if spec.device == "cpu" else "cuda")
    if spec.device == "cuda":
        raise InputError("device: got 'cuda', allowed 'cpu' or 'auto' on a machine without; choose one")
    return torch.device("cpu")


def _autocast(spec: GanSpec, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    import torch

    mixed = spec.precision == "bfloat16" and device.type == "cuda"
    return torch.autocast("cuda", dtype=torch.bfloat16) if mixed else contextlib.nullcontext()


def _normal(n: int, d: int, generator: torch.Generator) -> torch.Tensor:
    import torch

    return torch.randn((n, d), generator=generator, dtype=torch.float32)


def _softplus(values: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import softplus

    return softplus(values.float()).mean()


def _update(adam: torch.optim.Optimizer, vector: torch.Tensor, loss: torch.Tensor) -> None:
    adam.zero_grad()
    loss.backward(inputs=[vector])
    adam.step()


def _to_tensors(arrays: Arrays, device: torch.device) -> dict[str, torch.Tensor]:
    """Copies in aligned memory: kernels may round differently at other alignments."""
    import torch

    return {name: torch.tensor(value, device=device) for name, value in arrays.items()}


def _to_vector(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> torch.Tensor:
    import torch

    return torch.cat([torch.tensor(arrays[name]).flatten() for name in shapes])
