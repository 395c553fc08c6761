"""Bad input, made of good input: one value replaced by a nasty one, or the bytes of the file changed."""

import copy
import json

from hypothesis import strategies as st

HUGE = "x" * 100_000
NASTY = [
    *(None, True, False, 0, 1, -1, 2, 3, 2**31, 2**53, 2**63, 2**64, 2**70, 10**12, -(10**30), 10**400),
    *(0.0, -0.0, 0.5, 1.0, -2.5, 5e-324, 1e-300, 1e300, -1.7e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "true", "1", "1e999", "NaN", "null", HUGE, "é\u200f", "a\nb", "a\rb", "\x00", "\x1b[31m", "\ud800"),
    *("../../etc/passwd", "/dev/zero", "/dev/stdin", "~", "nowhere.json", "seed/train", "family/cnn/0..9", "a" * 600),
    *("INT4", "INT4-channel", "INT4-g999999", "INT9", "FP32", "FP16", "NF4-g64", "INT4-channel-asym", "BF16"),
    *("rule", "tree", "direct", "strategy", "genetic", "cmaes", "islands", "nsga2", "surrogate", "torch", "onnx"),
    *("os:system", "builtins:eval", "Linear", "Classifier", "loss", "loss:INT4", "is_Linear", "add", "'; --", "%s%n"),
    *([], {}, [[]], [None], [True], {"": None}, {"kind": "tree"}, {"kind": "os:system"}, [0] * 2000, {"a": [{}] * 99}),
]


def deep(levels):
    value = None
    for _ in range(levels):
        value = [value]
    return value


NASTY.append(deep(70))
TOKENS = [
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\r\n", b"\n", b"\t", b" ", b"\x1b[2J"),
    *(b"NaN", b"Infinity", b"1e999", b"-", b"9" * 5000, b"0x" + b"f" * 5000, b"1:00:00", b"null", b"true", b"~"),
    *(b"{", b"}", b"[", b"]", b'"', b"'", b",", b":", b": ", b"- ", b"\\", b"\\ud800", b"\\u0000", b"#", b"?", b"|"),
    *(b"[" * 300, b'{"a":' * 300, b"&a [*a]", b"*a", b"<<: {a: 1}", b"!!python/object:os.system {}", b"!!binary AA"),
    *(b"!!int x", b"!!timestamp x", b"--- \n", b"%YAML 9.9\n", b"? [a]\n: 1", b"x" * 20_000),
]


def places(plain):
    """Paths of every value in plain data, the whole included."""
    found, stack = [], [()]
    while stack:
        path = stack.pop()
        found.append(path)
        value = at(plain, path)
        if isinstance(value, dict):
            stack += [(*path, key) for key in value]
        elif isinstance(value, list):
            stack += [(*path, index) for index in range(min(len(value), 40))]
    return sorted(found, key=repr)


def at(plain, path):
    for key in path:
        plain = plain[key]
    return plain


def changed(plain, pick):
    """A copy with one to three values changed; `pick(n)` chooses a number below n."""
    result = copy.deepcopy(plain)
    for _ in range((1, 1, 1, 2, 3)[pick(5)]):
        paths = places(result)
        path = paths[pick(len(paths))]
        kind = pick(8)
        nasty = copy.deepcopy(NASTY[pick(len(NASTY))])
        if not path:
            result = nasty if kind == 0 else result
            continue
        holder, key = at(result, path[:-1]), path[-1]
        if kind < 4:
            holder[key] = nasty
        elif kind == 4:
            del holder[key]
        elif kind == 5:
            holder[key] = copy.deepcopy(at(result, paths[pick(len(paths))]))
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]) if kind == 6 else nasty)
        else:
            name = nasty if isinstance(nasty, str) else f"{key}{'_' * pick(3)}x"
            holder[name] = holder[key] if kind == 6 else nasty
            if pick(2):
                del holder[key]
        if not isinstance(result, (dict, list)):
            break
    return result


@st.composite
def broken(draw, plain):
    """`changed`, for hypothesis: what it finds is shrunk to the simplest case."""
    return changed(plain, lambda n: draw(st.integers(0, n - 1)))


def as_json(plain):
    """JSON as Python writes it, NaN and half characters included."""
    return json.dumps(plain).encode()


def as_yaml(plain):
    """The same, with YAML's words for what is no number."""
    text = json.dumps(plain).replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")
    return text.encode()


def garbled(data, rng, others=()):
    """Bytes with one to four changes: flipped, cut, doubled, spliced, torn, or a nasty token put in."""
    for _ in range(int(rng.choice((1, 1, 2, 4)))):
        size = len(data)
        start, more = (int(rng.integers(0, size + 1)) for _ in range(2)) if size else (0, 0)
        end = min(size, start + 1 + more % 64)
        kind = int(rng.integers(0, 8))
        token = TOKENS[int(rng.integers(0, len(TOKENS)))]
        other = others[int(rng.integers(0, len(others)))] if others else data
        if kind == 0 and start < size:
            data = data[:start] + bytes([data[start] ^ (1 << int(rng.integers(0, 8)))]) + data[start + 1 :]
        elif kind == 1:
            data = data[:start] + data[end:]
        elif kind == 2:
            data = data[:end] + data[start:]
        elif kind == 3:
            data = data[:start]
        elif kind == 4:
            cut = int(rng.integers(0, len(other) + 1))
            data = data[:start] + other[cut:]
        elif kind == 5:
            lines = data.split(b"\n")
            i, j = (int(rng.integers(0, len(lines))) for _ in range(2))
            lines[i], lines[j] = lines[j], lines[i]
            data = b"\n".join(lines)
        else:
            data = data[:start] + token + data[start if kind == 6 else end :]
    return data
