"""llama.cpp in a fresh process: log-probabilities of every place, and greedy continuations; one thread.

It gives probabilities for the token that comes next alone, so each place is a request of its own; the cache of the one
before it makes that one token's work. The cache is in FP32 and attention computed in full: with llama.cpp's own
settings, FP16 and flash attention, an FP32 file is hundreds of times as far from the network.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.export.consumers import LEAST_LOG, Feeds, Loaded, serve
from evoquant.models.generating import tokens_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_FORCED = 1000.0  # added to the end's logit, after the probabilities are taken: a lone byte's would be withheld
_END = 2  # llama.cpp's own, where the file has none


def load(path: Path, job: Mapping[str, Any], folder: Path) -> Loaded:
    """The model behind llama.cpp's server; facts are the types of the matrices, and the settings."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = reader.fields
    context = fields[f"{fields['general.architecture'].contents()}.context_length"]
    end = fields.get("tokenizer.ggml.eos_token_id")
    words = len(fields["tokenizer.ggml.tokens"].data)
    names = {tensor.name for tensor in reader.tensors}
    looked_up = "token_embd.weight" if "output.weight" in names else ""  # a table, if it is not the output as well
    types = {t.tensor_type.name for t in reader.tensors if len(t.shape) > 1 and t.name != looked_up}
    model = _Model(path, folder, int(context.contents()), words, _END if end is None else int(end.contents()))

    def run(feeds: Feeds) -> list[NDArray[np.generic]]:
        tokens = _tokens(feeds, job["names"])
        return [np.stack([model.log_probabilities(sample.tolist()) for sample in tokens])]

    facts = {"types": sorted(types), "settings": {"cache": "F32", "flash_attention": False, "threads": 1}}
    return Loaded(run, facts, model.generate)


def _tokens(feeds: Feeds, names: Sequence[str]) -> NDArray[np.generic]:
    """The input of tokens; llama.cpp has no other.

    Raises:
        ValueError: another is there that could matter.
    """
    tokens = tokens_in({name: feeds[name] for name in names}) or names[0]
    for name in names:
        if name != tokens and not (np.asarray(feeds[name]) == 1).all():
            raise ValueError(f"llama.cpp takes tokens alone, and {name!r} is no mask that lets everything through")
    return feeds[tokens]


class _Model:
    """A file in a server that is started when it is needed."""

    def __init__(self, path: Path, folder: Path, context: int, words: int, end: int) -> None:
        self._path, self._folder, self._context, self._words, self._end = path, folder, context, words, end
        self._length = 0
        self._server: Any = None

    def log_probabilities(self, tokens: list[int]) -> NDArray[np.float32]:
        """`(T, V)`: of what follows each token, at least `LEAST_LOG`."""
        self._start(len(tokens))
        rows = np.full((len(tokens), self._words), LEAST_LOG, dtype=np.float32)
        for place, row in enumerate(rows):
            found = self._next(tokens[: place + 1], self._words)
            if len(found) != self._words:
                raise ValueError(f"llama.cpp gave probabilities of {len(found)} tokens; the model has {self._words}")
            row[[each["id"] for each in found]] = [each["logprob"] for each in found]
        return np.maximum(rows, np.float32(LEAST_LOG))

    def generate(self, tokens: list[int], count: int) -> list[int]:
        """The most likely tokens to follow, one after the other, past an end."""
        self._start(len(tokens) + count)
        made: list[int] = []
        for _ in range(count):
            made.append(int(self._next([*tokens, *made], 1)[0]["id"]))
        return made

    def _next(self, tokens: list[int], count: int) -> list[dict[str, Any]]:
        """The most likely tokens after these, as they stand: nothing is put before them."""
        request = {
            "prompt": [tokens],
            "max_tokens": 1,
            "n_probs": count,
            "temperature": 0,
            "cache_prompt": True,
            "logit_bias": [[self._end, _FORCED]],
        }
        answer = self._server.handle_completions(request)
        if "error" in answer:
            raise ValueError(answer["error"]["message"])
        found: list[dict[str, Any]] = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return found

    def _start(self, length: int) -> None:
        """A server for samples of so many tokens; it wants room for one more."""
        if length <= self._length:
            return
        import xllamacpp

        self._server = None
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self._with_room(length + 1))
        parameters.n_ctx = length + 1
        parameters.n_parallel = 1
        parameters.cache_ram_mib = 0
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = parameters.n_threads_http = 1
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.warmup = parameters.fit_params = False
        parameters.verbosity = -1
        parameters.api_keys = [secrets.token_hex(16)]  # it listens on a local port, too, which is nobody's business
        self._server = xllamacpp.Server(parameters)
        self._length = length

    def _with_room(self, length: int) -> Path:
        """The file; where its context is one token too short, a copy that says otherwise: it only limits requests.

        Raises:
            ValueError: samples are longer than the context.
        """
        if length <= self._context:
            return self._path
        if length > self._context + 1:
            raise ValueError(f"samples of {length - 1} tokens, and the model's context is {self._context}")
        from gguf import GGUFReader

        copied = self._folder / self._path.name
        shutil.copyfile(self._path, copied)
        fields = GGUFReader(copied, "r+").fields
        fields[f"{fields['general.architecture'].contents()}.context_length"].parts[-1][0] = length
        return copied


def main(arguments: Sequence[str]) -> int:
    """Do a job; the exit code."""
    return serve(arguments, metadata.version("xllamacpp"), load)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
