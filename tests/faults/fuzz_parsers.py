"""Coverage-guided fuzzing of what reads profiles, genomes and configs: `fuzz_parsers.py TARGET [libFuzzer options]`.

Needs atheris. An input is used or refused in evoquant's words; anything else is a finding, and libFuzzer writes it to
a file. `-max_total_time=300` ends after as many seconds. `--rows FILE` appends what was tried, as the tests do.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
TARGETS = ("profile", "rule", "tree", "direct", "champion", "config")
WORDS = (
    *('"schema"', '"version"', '"name"', '"layers"', '"shape"', '"position"', '"type"', '"channel_axis"', '"loss"'),
    *('"allowed"', '"tie_group"', '"constant_bits"', '"kind"', '"rule"', '"tree"', '"direct"', '"strategy"', '"rungs"'),
    *('"signal"', '"above"', '"width"', '"edges"', '"fraction"', '"protected"', '"types"', '"otherwise"', '"widths"'),
    *('"expression"', '"model"', '"add"', '"where"', '"is_Linear"', '"size_share"', '"INT4"', '"INT8-g4-asym"'),
    *('"evoquant.profile"', '"evoquant.champion"', '"genome"', '"scores"', '"provenance"', "1e999", "NaN", "null"),
    *("true", "-0.0", "\\ud800", "search: ", "stop: ", "models: ", "menu: ", "objective: ", "genome: ", "&a ", "*a"),
    *("<<: ", "!!int ", "!!timestamp ", "!!binary ", ".nan", ".inf", "0x", "? ", "| ", "> ", "---", "population: "),
)


def seeds(target):
    """Valid inputs to begin with."""
    from tests.faults import judging as known

    if target == "profile":
        return [known.PROFILE]
    if target == "config":
        import yaml

        return [*known.CONFIG_TEXTS, *(json.dumps(yaml.safe_load(text)).encode() for text in known.CONFIG_TEXTS)]
    if target == "champion":
        return [json.dumps(one).encode() for one in known.champions()]
    return [json.dumps(one).encode() for one in known.GENOMES if one["kind"] in (target, "strategy")]


def reader(target):
    """What reads an input of that kind; raises EvoquantError for a bad one."""
    from evoquant.campaign.champion import champion_from_dict
    from evoquant.campaign.config import config_from_dict
    from evoquant.campaign.yaml_file import parse_yaml
    from evoquant.files import canonical_json, parse_json
    from evoquant.genomes.load import genome_from_dict
    from evoquant.profiles.model import profile_from_dict, profile_to_dict

    def profile(text):
        found = profile_from_dict(parse_json(text, "fuzz"), "fuzz")
        assert profile_from_dict(json.loads(canonical_json(profile_to_dict(found)))).digest == found.digest

    def genome(text):
        found = genome_from_dict(parse_json(text, "fuzz"), "fuzz")
        assert isinstance(found.text, str) and found.parts >= 0
        again = genome_from_dict(json.loads(canonical_json(found.to_dict())), "again")
        assert again.to_dict() == found.to_dict()

    def champion(text):
        json.loads(champion_from_dict(parse_json(text, "fuzz"), "fuzz").to_json())

    def config(text):
        data = parse_yaml(text, "fuzz")
        if isinstance(data, dict):
            data.setdefault("name", "fuzz")
        found = config_from_dict(data, "fuzz")
        assert config_from_dict(json.loads(canonical_json(found.to_dict())), "again").hash() == found.hash()

    return {"profile": profile, "champion": champion, "config": config}.get(target, genome)


def child(target, options):
    """Fuzz in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["evoquant"]):  # PyYAML itself, instrumented, takes most of the time
        from evoquant.errors import InputError

        read = reader(target)
        for seed in Path(options[-1]).iterdir():  # what is imported late is instrumented, too
            read(seed.read_text("utf-8"))
    from tests.faults.mutations import changed

    def one(data):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return  # refused before it comes to any of these
        try:
            read(text)
        except InputError as error:
            message = str(error)
            assert message and len(message) < 6000, message[:200]

    def mutate(data, most, seed):
        """By bytes, or a value of the JSON in it."""
        draw = random.Random(seed)
        if draw.random() < 0.5:
            try:
                made = json.dumps(changed(json.loads(data), draw.randrange)).encode()
            except (ValueError, RecursionError):
                made = b""
            if 0 < len(made) <= most:
                return made
        return atheris.Mutate(data, most)

    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutate)
    atheris.Fuzz()


def main():
    """Run libFuzzer in a process of its own and note what it says at its end."""
    target, *options = sys.argv[1:]
    if target not in TARGETS:
        sys.exit(f"fuzz_parsers.py: no target is called {target!r}; known: {', '.join(TARGETS)}")
    rows = None
    if "--rows" in options:
        place = options.index("--rows")
        rows = Path(options[place + 1])
        del options[place : place + 2]
    with tempfile.TemporaryDirectory() as folder:
        corpus, words = Path(folder) / "corpus", Path(folder) / "words"
        corpus.mkdir()
        for number, data in enumerate(seeds(target)):
            (corpus / str(number)).write_bytes(data)
        escaped = [word.replace("\\", "\\\\").replace('"', '\\"') for word in WORDS]
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        command = [sys.executable, __file__, "--child", target, f"-dict={words}", "-timeout=20", *options, str(corpus)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
        said = []
        for line in process.stderr:
            sys.stderr.write(line)
            said.append(line)
        code = process.wait()
    text = "".join(said)
    ended = re.search(r"Done (\d+) runs in (\d+) second", text)
    runs, seconds = (int(ended[1]), int(ended[2])) if ended else (0, 0)
    covered = re.findall(r"cov: (\d+)", text)
    row = {"file": "fuzz_parsers", "topic": "fuzz", "what": f"{target} parser, coverage-guided", "tried": runs}
    row |= {
        "held": runs if code == 0 else max(runs - 1, 0),
        "seconds": seconds,
        "coverage": int(covered[-1]) if covered else 0,
    }
    sys.stdout.write(json.dumps(row) + "\n")
    if rows is not None and ended:
        with rows.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
    sys.exit(code)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        main()
