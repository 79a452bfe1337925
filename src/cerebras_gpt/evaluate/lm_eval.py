"""Our models as a model of EleutherAI's lm-eval, under the name `cerebras-gpt`; import this module to register it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

try:
    from lm_eval import utils
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise ImportError(f'lm-eval is not there ({error}); pip install "cerebras-gpt[lm-eval]"') from None

from cerebras_gpt.evaluate.asking import BATCH_TOKENS, batches
from cerebras_gpt.generate.likelihood import Continuation, likelihoods
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.record import Steps

MAX_GENERATED = 256


@register_model("cerebras-gpt")
class CerebrasGPT(TemplateLM):
    """A checkpoint as lm-eval's LM: its three requests, its joining of context and continuation."""

    def __init__(self, path: str, batch_size: int | str = 1, device: str | None = None) -> None:
        """Loads a run or checkpoint folder; batches are by tokens, whatever batch_size lm-eval hands over."""
        super().__init__()
        self.lm = LM.load(Path(path))
        self.path = path

    @property
    def eot_token_id(self) -> int:
        """End of text, which also begins a text without a context."""
        return self.lm.tokenizer.end_of_text

    @property
    def max_length(self) -> int:
        """Tokens that the model reads at a time."""
        return self.lm.model.architecture.seq_len

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's cache of requests."""
        return self.path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        """The ids of a text, nothing added."""
        return self.lm.tokenizer.encode(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        asked = [Continuation((*given, *rest), len(given)) for _, given, rest in requests]
        found: dict[int, tuple[float, bool]] = {}
        with Steps("likelihoods", len(asked), shown=not disable_tqdm) as steps:
            for places in batches([min(self.max_length, len(one.ids)) for one in asked], BATCH_TOKENS):
                scores = likelihoods(self.lm.model, [asked[i] for i in places])
                found |= {i: (score[0], score[1]) for i, score in zip(places, scores, strict=True)}
                steps.show(len(found), "")
        return [found[i] for i in range(len(asked))]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each whole text, in lm-eval's windows that do not overlap."""
        return [self._rolled(request.args[0], disable_tqdm) for request in requests]

    def _rolled(self, text: str, disable_tqdm: bool) -> float:
        windows = utils.get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        asked = [(("", ""), *utils.make_disjoint_window(window)) for window in windows]
        return sum(logprob for logprob, _ in self._loglikelihood_tokens(asked, disable_tqdm=disable_tqdm))

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """What follows each context, before any of its stop strings."""
        with Steps("texts", len(requests), shown=not disable_tqdm) as steps:
            made = []
            for request in requests:
                made.append(self._generated(*request.args))
                steps.show(len(made), "")
        return made

    def _generated(self, context: str, settings: Mapping[str, object]) -> str:
        until = settings.get("until") or []
        stop = [until] if isinstance(until, str) else [str(one) for one in until]  # type: ignore[attr-defined]
        wanted = int(str(settings.get("max_gen_toks", MAX_GENERATED)))
        n = min(wanted, self.max_length - 1)
        heat = float(str(settings.get("temperature", 0.0))) if settings.get("do_sample") else 0.0
        kept = self.tok_encode(context)[-(self.max_length - n) :]
        return self.lm.generate(self.lm.tokenizer.decode(kept), n, Sampling(temperature=heat), stop)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
