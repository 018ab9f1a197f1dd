"""Makes tests/golden/*.json: what Hugging Face's fp32 models answer on the dequantised weights.

Run in an environment of its own, as torch is no dependency of festina:

    python -m venv /tmp/reference
    /tmp/reference/bin/pip install torch==2.13.0 transformers==5.24.0 gguf
    /tmp/reference/bin/python tests/golden/make_golden.py smollm2-135m WEIGHTS.gguf

The prompts are kept as token ids, so that the cases check the model alone. `least_gap` is the
smallest distance between the best and the second-best logit on the way: far above rounding errors,
so greedy outputs must agree exactly. `encodings` are what the tokenizer gives that `transformers`
builds from the same file, without a begin-of-text token.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
import transformers
from reference import greedy, load_reference
from transformers import AutoTokenizer

OUTPUT_TOKENS = 48
STORY = (
    "Once upon a time, in a small village by the sea, there lived an old clockmaker who had never "
    "once been late. Every morning at seven he wound the great clock of the tower, every evening "
    "at nine he wrote down what the day had brought, and nobody could remember that it had ever "
    "been otherwise. One morning, however,"
)
PROMPTS = (
    "Explain in two sentences why the sky is blue.",
    "def fibonacci(n):\n    ",
    "Three primary colours are red,",
    STORY,
)
WINDOW_PROMPT = " ".join([STORY] * 9)  # longer than the sliding window of gemma3
TEXTS = (
    "Hello, world! It's 2024, isn't it?",
    "  leading spaces,\ttabs\n\n\nand newlines  ",
    "naïve café 東京 🎉 \u00a0 1234567890",
    "<|im_start|>user\nhi<|im_end|>\n",
    "def f(x):\n    return x**2  # 3.14\r\n",
)


def main(name: str, path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    gemma = name.startswith("gemma")
    start = [tokenizer.bos_token_id] if gemma else []

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    encodings = [{"text": text, "ids": encode(text)} for text in TEXTS]
    model = load_reference(path)
    cases = []
    for text in (*PROMPTS, WINDOW_PROMPT) if gemma else PROMPTS:
        ids = start + encode(text)
        output, gap = greedy(model, ids, OUTPUT_TOKENS)
        cases.append({"text": text, "ids": ids, "output": output, "least_gap": round(gap, 5)})
        sys.stdout.write(f"{len(ids)} {tokenizer.decode(output)!r} {gap}\n")
    golden = {
        "model": name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, fp32",
        "cases": cases,
        "encodings": encodings,
    }
    target = Path(__file__).with_name(f"{name}.json")
    target.write_text(json.dumps(golden, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
