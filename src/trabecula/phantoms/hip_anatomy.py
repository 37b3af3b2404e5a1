"""The shape of a make-believe hip, and the signs of osteoarthritis on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trabecula.phantoms.shapes import Floats

# Edges of the ilium by height: (v, lateral edge beyond the rim of the socket, medial edge).
_ILIUM = np.array([
    (-2.0, 0.80, -1.60), (-1.20, 0.50, -1.22), (-0.95, 0.27, -1.04), (-0.75, 0.07, -0.90),
    (-0.58, -0.02, -0.80), (-0.42, 0.0, -0.73), (-0.10, 0.0, -0.67), (0.20, 0.0, -0.62), (2.0, 0.0, -0.60),
])  # fmt: skip

_NARROWING = (0.0, 0.05, 0.15, 0.50, 1.0)  # lost share of the joint space where the load is, by grade
_OSTEOPHYTE = (0.0, 0.036, 0.063, 0.095, 0.148)  # length, half image widths, by grade
_SITES_WITH_OSTEOPHYTES = (0, 1, 2, 3, 4)
_SCLEROSIS = (0.0, 0.0, 0.12, 0.5, 1.0)
_CYSTS = (0, 0, 0, 1, 3)
_DEFORMITY = (0.0, 0.0, 0.0, 0.35, 1.0)
_LOADS = (0.42, 0.0, -0.95)  # where the space goes: superolateral, superior, medial; radians from upwards
_LOAD_SHARES = (0.5, 0.3, 0.2)


@dataclass(frozen=True)
class Cyst:
    """A dark round hole with a bright rim; no radius, no cyst."""

    angle: float  # from the load's direction, radians
    depth: float  # below the surface of the head (negative) or above that of the socket
    radius: float


@dataclass(frozen=True)
class Signs:
    """Signs of osteoarthritis; all zero in a healthy hip but for the direction of the load."""

    narrowing: float  # lost share of the joint space
    load: float  # direction in which the head moves into the socket, radians from upwards to lateral
    osteophytes: tuple[float, float, float, float]  # length: socket's rim, head lateral, head medial, floor
    tilt: tuple[float, float, float, float]  # how far each turns, radians
    sclerosis: float
    cysts: tuple[Cyst, Cyst, Cyst]
    deformity: float  # of the head: flat above, mushroomed at its margin


def draw_signs(rng: np.random.Generator, grade: int, effect: float) -> Signs:
    """Draw the signs of a grade. The same numbers are drawn whatever the grade and the effect."""
    load = _LOADS[int(np.searchsorted(np.cumsum(_LOAD_SHARES), rng.random() * 0.999_999))]
    spread = rng.standard_normal(19)
    sites = rng.permutation(4)
    if sites[0] == 3:  # the first osteophyte seldom stands on the socket's floor
        sites = sites[[1, 0, 2, 3]]
    narrowing = float(np.clip(_NARROWING[grade] * (1 + 0.2 * spread[0]), 0, 1.1)) * effect
    lengths = np.zeros(4)
    chosen = sites[: _SITES_WITH_OSTEOPHYTES[grade]]
    lengths[chosen] = _OSTEOPHYTE[grade] * np.clip(1 + 0.3 * spread[1:5], 0.4, 1.7)[: chosen.size]
    first, second, third, fourth = (float(length) for length in lengths * effect)
    cysts = [
        Cyst(
            angle=0.3 * float(spread[10 + 3 * number]),
            depth=(0.10 + 0.03 * abs(float(spread[11 + 3 * number]))) * (1 if number == 1 else -1),
            radius=effect
            * float(np.clip(0.068 + 0.016 * spread[12 + 3 * number], 0.035, 0.10))
            * (number < _CYSTS[grade]),
        )
        for number in range(3)
    ]
    tilts = [0.2 * float(number) for number in spread[5:9]]
    return Signs(
        narrowing=narrowing,
        load=load + 0.15 * float(spread[9]),
        osteophytes=(first, second, third, fourth),
        tilt=(tilts[0], tilts[1], tilts[2], tilts[3]),
        sclerosis=_SCLEROSIS[grade] * float(np.clip(1 + 0.3 * spread[12], 0, 2)) * effect,
        cysts=(cysts[0], cysts[1], cysts[2]),
        deformity=_DEFORMITY[grade] * float(np.clip(1 + 0.3 * spread[15], 0, 2)) * effect,
    )


@dataclass(frozen=True)
class Anatomy:
    """Shape and pose of one hip; lengths in half image widths, angles in radians."""

    scale: float
    rotation: float
    shift: tuple[float, float]
    stance: float  # of the femur to the pelvis
    head: float  # radius
    space: float  # between head and socket
    seat: tuple[float, float]  # of the head in the socket, off its centre
    roof: tuple[float, float, float]  # lateral and medial end, radians from upwards; thickness of the sourcil
    ilium: Floats  # (9, 3) edges by height
    walls: tuple[float, float]  # how far the posterior and the anterior wall reach over the head
    teardrop: tuple[float, float, float]  # u, v, height
    pubis: tuple[float, float, float]  # v at the socket, slope, radius
    ischium: tuple[float, float]  # u of its lower end, radius
    arch: tuple[float, float]  # lower branch of the pubis: v at the midline, radius
    neck: tuple[float, float, float]  # angle below the horizontal, length, least half width
    trochanter: tuple[float, float, float, float]  # u, v of the tip, radius, lean
    lesser: tuple[float, float, float]  # how far inside the shaft's edge, v, radius
    shaft: tuple[float, float, float]  # half width, lean, cortex
    fovea: tuple[float, float]  # angle, depth
    cam: float  # bulge where head and neck meet, in health too
    thigh: tuple[float, float]  # place of the skin, and its lean
    fat: tuple[float, float]  # stripes of fat beside the joint: place, strength
    spots: tuple[tuple[float, float, float, float], ...]  # phleboliths, bone islands: u, v, radius, strength
    cortex: float
    texture: tuple[float, float, float]  # strength, fineness, verticality
    bands: tuple[float, float]  # strength of the compressive and the tensile bundle of trabeculae


def draw_anatomy(patient: np.random.Generator, hip: np.random.Generator, male: bool) -> Anatomy:
    """Draw a hip: the two of a patient resemble each other, pose and joint space differ."""

    def both(mean: float, sd: float) -> float:
        return mean + sd * float(0.8 * patient.standard_normal() + 0.6 * hip.standard_normal())

    ilium = _ILIUM.astype(np.float32)
    shape = (len(ilium), 2)
    ilium[:, 1:] += 0.8 * patient.normal(0, 0.03, shape) + 0.6 * hip.normal(0, 0.03, shape)
    head = both(0.425 if male else 0.395, 0.018)
    return Anatomy(
        scale=float(hip.normal(1.0, 0.04)),
        rotation=float(hip.normal(0, 0.05)),
        shift=(float(hip.normal(-0.10, 0.05)), float(hip.normal(-0.10, 0.05))),
        stance=float(hip.normal(0, 0.07)),
        head=head,
        space=float(np.clip(both(0.098, 0.018), 0.06, 0.14)),
        seat=(both(0.0, 0.010), both(0.006, 0.010)),
        roof=(both(0.60, 0.10), both(-0.75, 0.10), abs(both(0.060, 0.015))),
        ilium=ilium,
        walls=(both(0.0, 0.05), both(0.0, 0.06)),
        teardrop=(both(-0.53, 0.02), both(0.36, 0.03), both(0.13, 0.02)),
        pubis=(both(0.05, 0.03), both(0.36, 0.06), both(0.145, 0.015)),
        ischium=(both(-0.46, 0.04), both(0.165, 0.02)),
        arch=(both(0.80, 0.06), both(0.115, 0.015)),
        neck=(both(0.70, 0.06), both(0.84 if male else 0.80, 0.05), both(0.255, 0.018)),
        trochanter=(both(0.90, 0.04), both(0.06, 0.06), both(0.150, 0.015), both(0.06, 0.05)),
        lesser=(both(0.05, 0.03), both(0.90, 0.05), max(0.04, both(0.10, 0.03))),
        shaft=(both(0.255, 0.015), both(0.04, 0.03), max(0.5, both(1.0, 0.2))),
        fovea=(both(-1.25, 0.15), max(0.0, both(0.035, 0.015))),
        cam=max(0.0, both(0.02, 0.05)),
        thigh=(both(1.25, 0.16), both(0.15, 0.12)),
        fat=(both(0.20, 0.04), max(0.0, both(0.035, 0.02))),
        spots=_spots(patient, hip),
        cortex=max(0.5, both(1.0, 0.18)),
        texture=(max(0.2, both(1.1, 0.45)), max(0.6, both(1.05, 0.22)), max(0.3, both(1.0, 0.3))),
        bands=(max(0.0, both(0.14, 0.06)), max(0.0, both(0.10, 0.05))),
    )


def _spots(
    patient: np.random.Generator, hip: np.random.Generator
) -> tuple[tuple[float, float, float, float], ...]:
    """Harmless: calcified veins in the pelvis, an islet of dense bone, a flake beside the socket's rim."""
    spots = []
    for rng, (left, right), (top, bottom), strength in (
        (patient, (-1.0, -0.7), (-0.1, 0.5), 0.35),
        (patient, (-1.0, -0.7), (-0.1, 0.5), 0.35),
        (hip, (-0.2, 0.8), (-0.9, 0.9), 0.18),
        (hip, (0.24, 0.38), (-0.46, -0.34), 0.30),
    ):
        u, v, radius = rng.uniform(left, right), rng.uniform(top, bottom), rng.uniform(0.015, 0.035)
        if rng.random() < 0.25:
            spots.append((float(u), float(v), float(radius), strength))
    return tuple(spots)
