"""What a user calls a policy by: a path, `zoo:pong`, `hf://owner/repository[/file]`."""

import os
import re
from importlib import resources
from pathlib import Path

from potstill.errors import PotstillError
from potstill.teachers import hub

ZOO = "POTSTILL_ZOO"
"""The environment variable that names another folder for the zoo."""
BUNDLED = {"pong": "pong-dqn.safetensors"}
"""The zoo's policies that come with the package."""


def find(name: str | Path) -> Path:
    """The file of a policy. One of the Hub's is downloaded, or taken from the Hub's cache.

    Raises:
        PotstillError: there is none of that name, or it is a web page's. A path is not looked for.
    """
    text = str(name)
    if text.startswith("zoo:"):
        return _in_zoo(text.removeprefix("zoo:"))
    if re.match("https?:/", text):
        on_hub = re.match(r"https?:/{1,2}huggingface\.co/([\w.-]+/[\w.-]+)", text)
        raise PotstillError(f"{text}: name a file, " + (f"or hf://{on_hub[1]}" if on_hub else "downloaded before"))
    if match := re.match("hf:/{1,2}", text):  # a Path has swallowed one slash
        return hub.download(text[match.end() :])
    return Path(name)


def zoo_folder() -> Path:
    """Where the zoo's files lie: in a checkout of the repository, or where POTSTILL_ZOO says."""
    return Path(os.environ.get(ZOO) or Path(__file__).parents[3] / "zoo")


def zoo_names() -> list[str]:
    """What there is in the zoo."""
    return sorted({*BUNDLED, *(path.stem for path in zoo_folder().glob("*.safetensors"))})


def _in_zoo(name: str) -> Path:
    if name not in (known := zoo_names()):
        raise PotstillError(
            f"zoo:{name}: there are {', '.join(f'zoo:{k}' for k in known)}; more of them are in the repository's zoo/:"
            f" clone it and set {ZOO} to that folder"
        )
    if name in BUNDLED:
        return Path(str(resources.files("potstill") / "assets" / BUNDLED[name]))
    return zoo_folder() / f"{name}.safetensors"
