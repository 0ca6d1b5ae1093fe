"""Texts on which tokenizers disagree, if they do."""

import random

# Words of many scripts, forms of space, digits, marks, emoji, code.
PIECES = [
    "Hello", "world", "the", "The", "THE", "don't", "we'll", "I'VE", "it's", "'s", "'S", "''",
    "naïve", "Straße", "İstanbul", "ǅ", "ﬁne", "Ωμέγα", "Привет", "мир", "שלום", "مرحبا",
    "नमस्ते", "ภาษาไทย", "ქართული", "한국어", "日本語", "カタカナ", "ｱｲｳ", "中文字符", "𠮷野家",
    "🙂", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "❤️", "☃", "e\u0301", "n\u0303", "\u0301", "a\u200bb", "\u200d",
    "0", "7", "42", "123", "1234", "1234567", "3.14", "1,000,000", "0x1F", "１２３", "٣٤٥", "½", "Ⅷ", "²",
    " ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u2003", "\u0085",
    "\u2028", "\ufeff", "\v", "\f", ".", "...", "!?", "?!", "—", "–", "“quoted”", "«guillemets»", "。", "、",
    "(", ")", "[]", "{}", "<", ">", "</", "/>", "==", "===", "!=", "->", "=>", "::", "//", "/*", "*/", "#",
    "##", "$", "€", "%", "^", "&", "&&", "~", "`", "```", "|", "||", "\\", "_", "__init__", "@", "+", "-", "*",
    "def f(x):", "    return x", "fn main() {", "https://example.org/a?b=c&d=e", "user@example.org",
    "\u0000", "\u0001", "\u001b[0m", "\u007f", "\ufffd", "\ufffe", "\U0010ffff", "\ue000", "▁", "▁▁a", "Ġ", "Ċ",
    "<0x0A>", "<0xFF>", "<s", "s>", "<unk", "<|", "|>", "ſ", "'ſ", "K", "ß", "ẞ", "ﷺ", "㎏", "℡", "𝕳𝖊", "🅰",
]  # fmt: skip

SENTENCES = [
    "",
    " ",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    " leading space",
    "trailing space ",
    "  two  spaces  each  ",
    "tabs\tand\nnewlines\r\nand\n\n\nmore\n",
    "\n\n\n   \n\t \n x",
    "I can't believe it's not butter; they'd've said so, wouldn't they? WE'LL SEE, IT'S OK.",
    "Numbers: 1 12 123 1234 12345 123456 1234567890 3.14159 1e-10 0xDEADBEEF 2024-06-01 12:34:56",
    "def add(a, b):\n    \"\"\"Adds.\"\"\"\n    return a + b  # sum\n\n\nprint(add(1, 2))\n",
    "fn main() {\n\tlet x: Vec<u8> = vec![0; 32];\n\tprintln!(\"{x:?}\");\n}\n",
    "SELECT * FROM t WHERE a <> 'b' AND c >= 10; -- comment",
    "<html><body class=\"x\">&nbsp;&amp;</body></html>",
    "{\"key\": [1, 2.5, null, true], \"π\": \"\\u03c0\"}",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň. Falsches Üben von Xylophonmusik quält jeden größeren Zwerg.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "いろはにほへと ちりぬるを。今日は良い天気ですね！",
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。",
    "다람쥐 헌 쳇바퀴에 타고파",
    "إنا أعطيناك الكوثر، ١٢٣",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "🙂🙃😀😃 👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽👎🏿 ❤️‍🔥 ☃︎",
    "e\u0301 vs é, Å vs A\u030a, ﬁ vs fi, ½ vs 1⁄2",
    "zero\u200bwidth\u200cjoiners\u200d and\u00a0no-break\u2007spaces\u202f\u3000wide",
    "control\u0001characters\u0008and\u001b[31mescapes\u001b[0m",
    "nul\u0000inside",
    "private \ue000\uf8ff \U000f0000 and unassigned \U000e0fff noncharacters \ufffe\uffff \U0010ffff",
    "replacement \ufffd\ufffd\ufffd of bytes that were none",
    "literal ▁ and ▁▁ marks, Ġ and Ċ of byte-level, <0x0A><0xE2><0x96> byte names",
    "x" * 200,
    "ab" * 150,
    "=" * 100 + "-" * 77 + "#" * 33,
    "a" + " " * 65 + "b" + "\n" * 17 + "c" + "\t" * 9 + "d",
    "0" * 50,
    "The end of sentence.New sentence without space.And(parentheses)too",
    "camelCaseAndPascalCase snake_case kebab-case SCREAMING_SNAKE dot.path::to::thing",
    "ſhort long-s, 'ſ contraction, 'K kelvin, ŒUVRE, ĲSSEL",
]


def special_sentences(specials: list[str]) -> list[str]:
    """Texts with a model's own special tokens in them, whole, broken and adjacent."""
    texts = []
    for token in specials:
        texts += [
            token,
            f"{token}{token}",
            f"before{token}after",
            f"before {token} after",
            f"\n{token}\n\n{token} ",
            token[:-1],
            token[1:],
            f"{token[:-1]} {token[-1:]}",
        ]
    if specials:
        texts.append("".join(specials) + "text" + " ".join(specials))
    return texts


def texts(specials: list[str]) -> list[str]:
    """About three hundred texts, the same in each run."""
    chosen = random.Random(7)
    mixed = []
    for length in range(1, 161):
        pieces = chosen.choices(PIECES + specials, k=1 + length // 6)
        separator = chosen.choice(["", "", " ", " ", "\n"])
        mixed.append(separator.join(pieces))
    spaces = [f"a{' ' * count}b{' ' * count}" for count in range(2, 40, 3)]
    lines = [f"{chr(10) * count}x{chr(10) * count}" for count in range(1, 8)]
    return SENTENCES + PIECES + special_sentences(specials) + mixed + spaces + lines
