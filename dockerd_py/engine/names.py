"""Default names of containers: an adjective and the surname of somebody who moved science or computing on."""

from __future__ import annotations

import secrets
from collections.abc import Callable

ADJECTIVES = """
agile amber ample arctic autumn balanced bold brave breezy bright brisk calm candid careful cheerful clever cosmic
crisp curious daring deft diligent eager earnest elegant faithful fearless fluent frosty gentle golden graceful
grateful hardy helpful honest humble jolly keen kind lively lucid lunar mellow merry mighty mindful modest nimble
noble optimistic patient peaceful placid playful plucky polite proud quick quiet radiant ready reliable resolute
robust rustic serene sharp silent silver sincere sleek smart smooth solar solid spirited stable steady sturdy subtle
sunny swift tactful tender thrifty tidy tranquil trusting upbeat valiant vivid warm wise witty zesty
""".split()

SURNAMES = """
abel ampere anning archimedes babbage banach bernoulli bohr boole bose cannon cantor carson cauchy chandrasekhar
copernicus cori coulomb cray curie darwin descartes dijkstra dirac edison einstein erdos euclid euler faraday fermat
fermi feynman franklin galileo galois gauss germain godel goodall goldberg hamilton heisenberg herschel hertz hilbert
hodgkin hopper hubble huygens hypatia johnson joule kapitsa kepler khayyam knuth kovalevskaya lagrange lamarr laplace
leavitt leibniz linnaeus lovelace maxwell mccarthy mcclintock meitner mendel mendeleev mirzakhani napier newton
nightingale noether ohm pascal pasteur pauli payne planck poincare ptolemy ramanujan riemann ritchie rubin rutherford
sagan salk shannon somerville tesla thompson turing vaughan volta wiles wilson wozniak wu yalow
""".split()

RETRIES = 5


def generate(is_taken: Callable[[str], bool], fallback: str) -> str:
    """A free name.  When the dice fail, a digit is put behind; when that fails too, ``fallback``."""
    for attempt in range(RETRIES + 1):
        name = f"{secrets.choice(ADJECTIVES)}_{secrets.choice(SURNAMES)}"
        if attempt:
            name += str(secrets.randbelow(10))
        if not is_taken(name):
            return name
    return fallback
