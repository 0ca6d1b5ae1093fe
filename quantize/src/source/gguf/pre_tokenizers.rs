//! How byte-level BPE tokenizers split text into words, by `tokenizer.ggml.pre`.
//!
//! The expressions are those of the models' own `tokenizer.json`, in the form in which
//! llama.cpp evaluates them (contractions spelled out, as its matcher knows no `(?i)`).

use serde_json::{Value, json};

/// A way to split, with what llama.cpp ties to it.
pub(super) struct PreTokenizer {
    steps: &'static [Step],
    /// A word that is a token is taken whole, without a look at the merges.
    pub(super) ignore_merges: bool,
    /// The text starts with BOS unless the metadata say otherwise.
    pub(super) add_bos: bool,
}

/// Applied one after the other, each to the pieces of the one before.
enum Step {
    /// Every digit by itself.
    Digits,
    /// Matches and what lies between them become pieces.
    Split(&'static str),
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl PreTokenizer {
    const fn plain(steps: &'static [Step]) -> Self {
        Self {
            steps,
            ignore_merges: false,
            add_bos: false,
        }
    }

    const fn whole_words(steps: &'static [Step]) -> Self {
        Self {
            steps,
            ignore_merges: true,
            add_bos: true,
        }
    }

    /// By the name in the metadata; `None` for those that are not known.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "default" => Self::plain(&[
                Step::Split(r"[\p{P}\$\+<=>\^~\|]+"),
                Step::Split(GPT2),
                Step::Split(r"\p{N}+"),
                Step::Split("[0-9][0-9][0-9]"),
            ]),
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral"
            | "midm-2.0" => Self::whole_words(&[Step::Split(LLAMA3)]),
            "dbrx" | "smaug-bpe" => Self::plain(&[Step::Split(LLAMA3)]),
            "gpt-2" | "phi-2" | "gigachat" | "mellum" | "a.x-4.0" | "mpt" | "olmo" | "jais"
            | "trillion" | "exaone4" => Self::plain(&[Step::Split(GPT2)]),
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone"
            | "minerva-7b" => Self::plain(&[Step::Digits, Step::Split(GPT2)]),
            "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "megrez" | "hunyuan" => {
                Self::plain(&[Step::Split(QWEN2)])
            }
            _ => return None,
        })
    }

    /// As `tokenizer.json` has it.
    pub(super) fn to_json(&self) -> Value {
        // The tokenizers crate brings GPT-2's expression with its byte-level step.
        let (steps, use_regex) = match self.steps {
            [steps @ .., Step::Split(GPT2)] => (steps, true),
            steps => (steps, false),
        };
        let byte_level = json!({
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": true,
            "use_regex": use_regex,
        });
        if steps.is_empty() {
            return byte_level;
        }
        let mut sequence: Vec<Value> = steps.iter().map(Step::to_json).collect();
        sequence.push(byte_level);
        json!({"type": "Sequence", "pretokenizers": sequence})
    }
}

impl Step {
    fn to_json(&self) -> Value {
        match self {
            Self::Digits => json!({"type": "Digits", "individual_digits": true}),
            Self::Split(expression) => json!({
                "type": "Split",
                "pattern": {"Regex": expression},
                "behavior": "Isolated",
                "invert": false,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smollm_and_gpt2_use_the_crates_own_expression() {
        let gpt2 = PreTokenizer::by_name("gpt-2").unwrap().to_json();
        assert_eq!(
            (&gpt2["type"], &gpt2["use_regex"]),
            (&json!("ByteLevel"), &json!(true))
        );
        let smollm = PreTokenizer::by_name("smollm").unwrap();
        let steps = smollm.to_json();
        assert_eq!(steps["pretokenizers"][0]["type"], "Digits");
        assert_eq!(steps["pretokenizers"][1]["use_regex"], true);
        assert!(!smollm.ignore_merges && !smollm.add_bos);
    }

    #[test]
    fn llama3_takes_whole_words_and_adds_bos() {
        let llama3 = PreTokenizer::by_name("llama-bpe").unwrap();
        assert!(llama3.ignore_merges && llama3.add_bos);
        assert_eq!(llama3.to_json()["pretokenizers"][1]["use_regex"], false);
        assert!(PreTokenizer::by_name("tekken").is_none());
    }
}
