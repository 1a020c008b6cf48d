"""Writes merged/: the start model with the adapter of output/ in its weights, for `poc evaluate merged` (README.md)."""

from pathlib import Path

from poc.config import RunConfig
from poc.configfile import load
from poc.models import load_policy

HERE = Path(__file__).resolve().parent


def main() -> None:
    config = load(RunConfig, str(HERE / "config.yaml"))
    policy = load_policy(  # whole, also where training was on NF4: merged into that, the adapter would be rounded
        config.model, quantization="none", lora_rank=config.lora.rank, lora_alpha=config.lora.alpha, device="cpu",
        adapter=HERE / "output",
    )  # fmt: skip
    policy.model.merge_and_unload().save_pretrained(HERE / "merged")
    policy.tokenizer.save_pretrained(HERE / "merged")


if __name__ == "__main__":
    main()
