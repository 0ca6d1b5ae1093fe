//! `tokenizer_config.json` and `generation_config.json`, as far as they matter here.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::TextError;
use crate::sampling::SamplingOptions;

/// Reads a JSON file of the model folder.
pub(super) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, TextError> {
    let bytes = read_bytes(path)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| TextError::invalid(path, format!("not the JSON expected: {e}")))
}

pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, TextError> {
    std::fs::read(path).map_err(|source| TextError::Read {
        path: path.to_owned(),
        source,
    })
}

/// `tokenizer_config.json`: the special tokens and the chat template.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    #[serde(default)]
    bos_token: Option<SpecialToken>,
    #[serde(default)]
    eos_token: Option<SpecialToken>,
    #[serde(default)]
    unk_token: Option<SpecialToken>,
    #[serde(default)]
    pad_token: Option<SpecialToken>,
    #[serde(default)]
    sep_token: Option<SpecialToken>,
    #[serde(default)]
    cls_token: Option<SpecialToken>,
    #[serde(default)]
    mask_token: Option<SpecialToken>,
    #[serde(default)]
    pub(super) chat_template: Option<ChatTemplates>,
}

impl TokenizerConfig {
    /// The special tokens by the names a chat template knows them by.
    pub(super) fn special_tokens(&self) -> BTreeMap<&'static str, String> {
        [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("unk_token", &self.unk_token),
            ("pad_token", &self.pad_token),
            ("sep_token", &self.sep_token),
            ("cls_token", &self.cls_token),
            ("mask_token", &self.mask_token),
        ]
        .into_iter()
        .filter_map(|(name, token)| Some((name, token.as_ref()?.text().to_owned())))
        .collect()
    }

    pub(super) fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_ref().map(SpecialToken::text)
    }
}

/// A token's text, bare or with the `tokenizers` library's flags around it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Added { content: String },
}

impl SpecialToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Added { content: text } => text,
        }
    }
}

/// One template, or several by name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum ChatTemplates {
    One(String),
    Named(Vec<NamedTemplate>),
}

/// A template of a list.
#[derive(Debug, Deserialize)]
pub(super) struct NamedTemplate {
    pub(super) name: String,
    pub(super) template: String,
}

/// `generation_config.json`: where generation ends, and how tokens are chosen by default.
#[derive(Debug, Default, Deserialize)]
pub(super) struct GenerationConfig {
    #[serde(default)]
    eos_token_id: Option<OneOrMany>,
    #[serde(default)]
    do_sample: Option<bool>,
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    top_k: Option<usize>,
    #[serde(default)]
    top_p: Option<f32>,
    #[serde(default)]
    min_p: Option<f32>,
    #[serde(default)]
    repetition_penalty: Option<f32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

/// What Hugging Face's `generate` samples with where the file does not say.
const DEFAULT_TOP_K: usize = 50;

impl GenerationConfig {
    /// The ids that end a generation; none when the file does not say.
    pub(super) fn eos_ids(&self) -> &[u32] {
        match &self.eos_token_id {
            None => &[],
            Some(OneOrMany::One(id)) => std::slice::from_ref(id),
            Some(OneOrMany::Many(ids)) => ids,
        }
    }

    /// The settings as Hugging Face's `generate` reads them: without `do_sample`
    /// the rest but the penalty is ignored and the choice is greedy.
    pub(super) fn sampling(&self) -> SamplingOptions {
        let off = SamplingOptions::default();
        let repetition_penalty = self.repetition_penalty.unwrap_or(off.repetition_penalty);
        if self.do_sample != Some(true) {
            return SamplingOptions {
                repetition_penalty,
                ..off
            };
        }
        SamplingOptions {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(DEFAULT_TOP_K),
            top_p: self.top_p.unwrap_or(off.top_p),
            min_p: self.min_p.unwrap_or(off.min_p),
            repetition_penalty,
            seed: None,
        }
    }
}

/// Parses a config already in memory (tests).
#[cfg(test)]
pub(super) fn parse<T: for<'de> Deserialize<'de>>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("a config of the test")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn special_tokens_come_bare_or_wrapped_and_null_is_absent() {
        let config: TokenizerConfig = parse(json!({
            "bos_token": "<s>",
            "eos_token": {"content": "</s>", "lstrip": false, "special": true},
            "pad_token": null,
            "model_max_length": 1e30,
        }));
        let tokens = config.special_tokens();
        assert_eq!(tokens.len(), 2);
        assert_eq!(tokens["bos_token"], "<s>");
        assert_eq!(tokens["eos_token"], "</s>");
    }

    #[test]
    fn eos_is_a_number_or_a_list() {
        let eos = |value| parse::<GenerationConfig>(value).eos_ids().to_vec();
        assert_eq!(eos(json!({"eos_token_id": 2})), [2]);
        assert_eq!(
            eos(json!({"eos_token_id": [128001, 128008]})),
            [128_001, 128_008]
        );
        assert_eq!(eos(json!({"eos_token_id": null})), [0u32; 0]);
        assert_eq!(eos(json!({})), [0u32; 0]);
    }

    #[test]
    fn sampling_defaults_follow_do_sample() {
        let greedy: GenerationConfig = parse(json!({"temperature": 0.6, "top_p": 0.9}));
        assert_eq!(greedy.sampling(), SamplingOptions::default());
        let drawn: GenerationConfig =
            parse(json!({"do_sample": true, "temperature": 0.6, "top_p": 0.9}));
        assert_eq!(
            drawn.sampling(),
            SamplingOptions {
                temperature: 0.6,
                top_k: 50,
                top_p: 0.9,
                ..SamplingOptions::default()
            }
        );
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("generation_config.json");
        let missing = read::<GenerationConfig>(&path).unwrap_err().to_string();
        assert!(missing.contains("generation_config.json"), "{missing}");
        assert!(missing.contains("chaski-quantize"), "{missing}");
        std::fs::write(&path, "{\"eos_token_id\": \"two\"}").unwrap();
        let broken = read::<GenerationConfig>(&path).unwrap_err().to_string();
        assert!(broken.contains("generation_config.json"), "{broken}");
    }
}
