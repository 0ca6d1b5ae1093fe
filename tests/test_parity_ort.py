"""SmolLM2: our greedy tokens against ONNX Runtime's on the same folder.

Ours are those of the float path: what int8 activations lose is the matter of
test_int8_activations.py. Both add f32 numbers in an order of their own, so two tokens of all but equal
logits may come out either way: that, and only that, is let pass.
"""

import json

import numpy as np
import pytest
import tokenizers
import transformers

from tools import engine, ort
from tools.prompts import LONG, all_prompts

TOKENS = 64
"""Greedy tokens of each prompt."""

TOLERANCE = 2e-3
"""Where the tokens part, ONNX Runtime's own logits of the two differ by less."""

MOST_PARTED = 2
"""Prompts that may part at all, of some thirty."""


@pytest.fixture(scope="module", params=["as-imported", "symmetric"])
def folder(request):
    name = {"as-imported": "smollm2_folder", "symmetric": "smollm2_symmetric_folder"}
    return request.getfixturevalue(name[request.param])


@pytest.fixture(scope="module")
def answers(folder, chaski):
    """Our engine's answer to every prompt."""
    return engine.generate(chaski, folder, all_prompts(), TOKENS, *engine.FLOAT)


@pytest.fixture(scope="module")
def model(folder):
    return ort.OrtModel(folder)


def test_there_are_enough_prompts_and_a_long_one(folder):
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert len(all_prompts()) >= 20
    assert len(tokenizer.encode(LONG).ids) >= 600


def where_they_part(model, answer: dict, at_once: int) -> tuple[int, float] | None:
    """The step at which ONNX Runtime chooses another token, and its logits' gap there.

    ONNX Runtime is fed `at_once` tokens in a run, over its own KV cache. With 1
    it decodes for itself: a token goes in only after its own argmax was that
    token. With more, the later tokens of a run are in it in advance, and are
    not looked at once an earlier one was not its choice.
    """

    def judge(step: int, logits: np.ndarray) -> tuple[int, float] | None:
        theirs, ours = int(np.argmax(logits)), answer["tokens"][step]
        return None if theirs == ours else (step, float(logits[theirs] - logits[ours]))

    decoder = model.decoder()
    before = decoder.feed(answer["prompt_tokens"])
    for start in range(0, TOKENS, at_once):
        chunk = answer["tokens"][start : start + at_once]
        if part := judge(start, before):
            return part
        after = decoder.feed_all(chunk)
        for offset in range(1, len(chunk)):
            if part := judge(start + offset, after[offset - 1]):
                return part
        before = after[-1]
    return None


def assert_same_choices(model, answers: list[dict], at_once: int) -> None:
    parted = []
    for answer in answers:
        part = where_they_part(model, answer, at_once)
        if part is not None:
            step, gap = part
            parted.append((answer["text"], step, gap))
            assert gap < TOLERANCE, parted[-1]
    print("parted within the tolerance:", parted)
    assert len(parted) <= MOST_PARTED, parted


def test_greedy_tokens_equal_onnx_runtimes(model, answers):
    assert_same_choices(model, answers, at_once=16)


def test_greedy_tokens_equal_onnx_runtimes_token_by_token(folder, model, answers):
    """All prompts of the symmetric folder, a few of the other.

    With fractional zero points ONNX Runtime dequantises every matrix anew for
    every run: ten times slower.
    """
    scheme = json.loads((folder / "chaski.json").read_text())["quantisation"]["scheme"]
    stride = {"auto": 7, "symmetric": 1}[scheme]
    assert_same_choices(model, answers[::stride], at_once=1)


def test_logits_after_a_long_prompt_are_onnx_runtimes(folder, model, answers, chaski):
    """Not the choice alone: all 49152 numbers, after several chunks of prefill."""
    ids = answers[-1]["prompt_tokens"]
    theirs = model.decoder().feed(ids)
    for chunk in ("128", "50"):
        ours = engine.logits(chaski, folder, ids, "--prefill-chunk", chunk, *engine.FLOAT)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < TOLERANCE


def test_prompts_are_encoded_as_hugging_face_encodes_them(folder, answers):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for prompt, answer in zip(all_prompts(), answers, strict=True):
        if "chat" in prompt:
            messages = [{"role": "user", "content": prompt["chat"]}]
            text = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
            expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            expected = tokenizer(prompt["prompt"])["input_ids"]
        assert answer["prompt_tokens"] == expected, prompt


def test_text_is_what_hugging_face_decodes(folder, answers):
    """Our incremental detokeniser, fed token by token, loses and adds nothing."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for answer in answers:
        whole = tokenizer.decode(answer["tokens"], skip_special_tokens=True)
        assert answer["text"] == whole
