"""The tokenizer.json made of a GGUF's metadata encodes as llama.cpp does.

Held against llama.cpp itself (PyPI's `xllamacpp`), against the program the
vocabulary was made for (`sentencepiece`, `tiktoken`), and evaluated both by
the `tokenizers` crate as the engine builds it and by the Python package.
"""

import json

import pytest
from tokenizers import Tokenizer

from tools import llama_cpp, vocabularies, vocabulary_gguf
from tools.programs import run, target_dir
from tools.texts import PIECES, SENTENCES, texts

SPLITS = [
    "default",
    "gpt-2",
    "smollm",
    "llama-bpe",
    "smaug-bpe",
    "qwen2",
]


class Converted:
    """A GGUF file and what `chaski-quantize` makes of it."""

    def __init__(self, gguf, folder):
        self.gguf = gguf
        self.tokenizer_json = folder / "tokenizer.json"
        self.tokenizer = Tokenizer.from_file(str(self.tokenizer_json))
        self.generation_config = json.loads((folder / "generation_config.json").read_text())
        self.tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text())

    def specials(self) -> list[str]:
        added = json.loads(self.tokenizer_json.read_text())["added_tokens"]
        return [token["content"] for token in added][:24]


@pytest.fixture(scope="session")
def convert(chaski_quantize, tmp_path_factory):
    """Makes a model folder of a GGUF file."""

    def converted(gguf):
        folder = tmp_path_factory.mktemp("converted") / "model"
        run(chaski_quantize, gguf, "-o", folder)
        return Converted(gguf, folder)

    return converted


@pytest.fixture(scope="session")
def made(convert, tmp_path_factory):
    """Writes a GGUF file with a function and converts it."""

    def converted(write, *arguments, **options):
        gguf = tmp_path_factory.mktemp("gguf") / "model.gguf"
        write(*arguments, gguf, **options)
        return convert(gguf)

    return converted


@pytest.fixture(scope="session")
def smollm2(convert, smollm2_gguf):
    return convert(smollm2_gguf)


@pytest.fixture(scope="session")
def sentencepiece_model(made):
    return made(vocabulary_gguf.sentencepiece)


@pytest.fixture(scope="session")
def llama3(made):
    return made(vocabulary_gguf.llama3)


def assert_same(samples, ours, theirs, whose):
    assert len(samples) == len(ours) == len(theirs)
    differing = [
        f"{text!r}:\n  ours   {own}\n  {whose} {other}"
        for text, own, other in zip(samples, ours, theirs)
        if own != other
    ]
    assert not differing, f"{len(differing)} of {len(samples)} differ\n" + "\n".join(differing[:10])


def assert_as_llama_cpp(model: Converted, samples=None):
    """The crate, the Python package and llama.cpp give the same ids."""
    samples = samples or texts(model.specials())
    encode = target_dir() / "release" / "examples" / "encode"
    assert encode.is_file(), "run `cargo build --release --examples` (or the unit tests) first"
    ours = json.loads(run(encode, model.tokenizer_json, input=json.dumps(samples)).stdout)
    assert_same(samples, ours, llama_cpp.tokenise(model.gguf, samples), "llama.cpp")
    python = [encoding.ids for encoding in model.tokenizer.encode_batch(samples)]
    assert_same(samples, ours, python, "Python's tokenizers")


def test_smollm2(smollm2):
    assert_as_llama_cpp(smollm2)
    assert smollm2.generation_config["bos_token_id"] == 1
    # <|im_end|> ends a turn, <|endoftext|> a document.
    assert smollm2.generation_config["eos_token_id"] == [2, 0]
    assert "<|im_start|>" in smollm2.tokenizer_config["chat_template"]


def test_sentencepiece(sentencepiece_model):
    assert_as_llama_cpp(sentencepiece_model)
    assert sentencepiece_model.generation_config == {"bos_token_id": 1, "eos_token_id": 2}


def test_sentencepiece_as_its_own_library(sentencepiece_model):
    from sentencepiece import SentencePieceProcessor

    library = SentencePieceProcessor(str(vocabularies.sentencepiece_model()))
    samples = [text for text in SENTENCES + PIECES if text]
    theirs = [[library.bos_id(), *library.encode(text)] for text in samples]
    ours = [encoding.ids for encoding in sentencepiece_model.tokenizer.encode_batch(samples)]
    assert_same(samples, ours, theirs, "sentencepiece")
    decoded = [sentencepiece_model.tokenizer.decode(ids) for ids in ours]
    # The mark for a space is a space to the model.
    assert decoded == [text.replace("▁", " ") for text in samples]


def test_sentencepiece_without_a_space_before(made):
    assert_as_llama_cpp(made(vocabulary_gguf.sentencepiece, add_space_prefix=False))


def test_sentencepiece_with_tokens_of_a_user(made):
    tokens = ["<|im_start|>", "<|im_end|>", "\n\n\n", "[TOOL]", "    "]
    model = made(vocabulary_gguf.sentencepiece, user_defined=tokens)
    assert_as_llama_cpp(model)
    # Its name tells llama.cpp, and us, that it ends an answer.
    assert model.generation_config["eos_token_id"] == [2, 32001]


def test_llama3(llama3):
    assert_as_llama_cpp(llama3)
    assert llama3.generation_config["bos_token_id"] == 128000
    # <|eot_id|> first, as the file says; <|end_of_text|> and <|eom_id|> by name.
    assert llama3.generation_config["eos_token_id"] == [128009, 128001, 128008]


def test_llama3_as_tiktoken(llama3):
    import tiktoken

    ranks = vocabularies.llama3_ranks()
    specials = vocabularies.llama3_specials()
    library = tiktoken.Encoding(
        "llama3",
        pat_str=vocabularies.LLAMA3_SPLIT,
        mergeable_ranks=ranks,
        special_tokens={token: len(ranks) + i for i, token in enumerate(specials)},
    )
    # (?i:'s) takes the long s, too; llama.cpp and we do not.
    samples = [text for text in texts(specials[:12]) if "ſ" not in text]
    theirs = [[128000, *library.encode(text, allowed_special="all")] for text in samples]
    ours = [encoding.ids for encoding in llama3.tokenizer.encode_batch(samples)]
    assert_same(samples, ours, theirs, "tiktoken")


@pytest.mark.parametrize("pre", SPLITS)
def test_splits(made, smollm2_gguf, pre):
    """Every way to split text that is read, over one vocabulary."""

    def write(path, **options):
        vocabulary_gguf.with_other_splits(smollm2_gguf, path, pre, **options)

    assert_as_llama_cpp(made(write, add_bos=True, add_eos=pre != "gpt-2"))


def test_unknown_splits_are_refused(chaski_quantize, smollm2_gguf, tmp_path):
    gguf = tmp_path / "model.gguf"
    vocabulary_gguf.with_other_splits(
        smollm2_gguf, gguf, "some-new-one", add_bos=False, add_eos=False
    )
    folder = tmp_path / "folder"
    result = run(chaski_quantize, gguf, "-o", folder, check=False)
    assert result.returncode != 0
    assert "some-new-one" in result.stderr
    assert not folder.exists()
