"""`tiny-arithmetic`: a language model so small that every response can be enumerated.

Llama architecture, about 10^5 parameters, 14 tokens. It is trained here, in seconds, to answer 'a+b=' with
the digits of the sum and the end token; the training labels are right only some of the time, so that the base
success probabilities are spread over the interesting range and reinforcement has something left to learn.
"""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llm_bridge.models.cache import build_once, fingerprint, quiet
from theory.refusal import Refusal

VOCABULARY = (*"0123456789", "+", "=", "<end>", "<pad>")
END, PAD = VOCABULARY.index("<end>"), VOCABULARY.index("<pad>")
MAX_TOKENS = 3
"""Longest response: two digits and the end token; at most 14^3 responses in all."""


@dataclass(frozen=True)
class TinyRecipe:
    """How `tiny-arithmetic` is built: everything that changes its weights, and so its cache key.

    Arguments:
        accuracy_easy, accuracy_hard: probability that the training label is the sum where that is 0 and where
            it is 18, and linear between; else the label is uniform on 0..18.
        steps, learning_rate: AdamW on the cross-entropy of the response tokens, all 100 queries in each step.
        seed: of the initial weights and of the training data.
    """

    hidden: int = 64
    intermediate: int = 192
    layers: int = 2
    heads: int = 4
    steps: int = 200
    learning_rate: float = 5e-3
    accuracy_easy: float = 0.5
    accuracy_hard: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("accuracy_easy", "accuracy_hard"):
            if not 0 <= (value := getattr(self, field)) <= 1:
                raise Refusal(f"{field} is {value}, not a probability; choose a value from 0 to 1")

    @property
    def key(self) -> str:
        """Name of the cache folder: changes with every field."""
        canonical = json.dumps(asdict(self), sort_keys=True)
        return f"tiny-arithmetic-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


def exact_float64(model: nn.Module) -> nn.Module:
    """Swap the RMS norms, which transformers computes in float32 always, for full-precision ones.

    Valid when: the norm multiplies by its weight (Llama, Qwen, Mistral, OLMo); others are left alone.
    """
    for name, norm in list(model.named_modules()):
        if type(norm).__name__.endswith("RMSNorm") and hasattr(norm, "variance_epsilon"):
            weight: nn.Parameter = norm.weight  # pyright: ignore[reportAssignmentType]
            exact = nn.RMSNorm(weight.shape, eps=norm.variance_epsilon)  # pyright: ignore[reportArgumentType]
            exact.weight = weight
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, exact)
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character; text outside the alphabet is an error of the query, not an unknown token."""
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Split(Regex("."), behavior="isolated")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")


def label_distribution(recipe: TinyRecipe) -> Tensor:
    """Training distribution (100, 19) of the answer 0..18 to 'a+b=', row 10a + b: the sum with the accuracy
    of its size, else any number."""
    total = torch.arange(10)[:, None] + torch.arange(10)
    total = total.reshape(-1, 1)
    accuracy = recipe.accuracy_easy + (recipe.accuracy_hard - recipe.accuracy_easy) * total.double() / 18
    return (1 - accuracy) / 19 + accuracy * (total == torch.arange(19))


def _training_tensors(recipe: TinyRecipe) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prompts (100, 4), responses (19, 3), targets (100, 19, 3, V) and mask (19, 3).

    A target is the exact distribution of the next token after the query and the response's earlier tokens:
    training on it instead of on sampled labels takes the noise out and makes seconds enough.
    """
    prompts = torch.tensor([[a, 10, b, 11] for a in range(10) for b in range(10)])
    texts = [[*map(int, str(n)), END] for n in range(19)]
    responses = torch.tensor([text + [PAD] * (MAX_TOKENS - len(text)) for text in texts])
    mask = torch.tensor([[t < len(text) for t in range(MAX_TOKENS)] for text in texts])
    same = responses[:, None, :] == responses[None, :, :]
    shared = torch.cat([torch.ones(19, 19, 1), same[..., :-1].cumprod(-1)], dim=-1).double()
    token = nn.functional.one_hot(responses, len(VOCABULARY)).double()
    targets = torch.einsum("qm,nmt,mtv->qntv", label_distribution(recipe), shared, token)
    return prompts, responses, targets / targets.sum(-1, keepdim=True), mask.double()


def train_tiny(recipe: TinyRecipe) -> LlamaForCausalLM:
    """The trained model in float32: the same recipe gives the same weights.

    Training runs in float64 and is rounded once at the end, so that the number of threads and the order of
    a processor's sums, which move float64 in its last bits, do not show in the result.
    """
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=16,
        initializer_range=recipe.hidden**-0.5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(config)
    work = exact_float64(deepcopy(model)).double().train()
    prompts, responses, targets, mask = _training_tensors(recipe)
    labels = label_distribution(recipe)
    everyone = torch.arange(len(prompts))
    generator = torch.Generator().manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(work.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps)
    for _ in range(recipe.steps):
        label = torch.multinomial(labels, 1, generator=generator).squeeze(-1)
        ids = torch.cat([prompts, responses[label]], dim=1)
        logprobs = work(input_ids=ids[:, :-1]).logits[:, -MAX_TOKENS:].log_softmax(-1)
        loss = -((targets[everyone, label] * logprobs).sum(-1) * mask[label]).sum() / mask[label].sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.load_state_dict({name: value.float() for name, value in work.state_dict().items()})
    return model.eval()


def tiny_folder(recipe: TinyRecipe | None = None) -> Path:
    """Cached folder of the trained model and its tokenizer; trains on the first call."""
    recipe = recipe or TinyRecipe()

    def build(folder: Path) -> None:
        model = train_tiny(recipe)
        with quiet():
            model.save_pretrained(folder)
            tiny_tokenizer().save_pretrained(folder)
        (folder / "fingerprint").write_text(fingerprint(model))

    return build_once(recipe.key, build)
