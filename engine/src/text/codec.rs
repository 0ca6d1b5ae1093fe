//! The tokenizer of a model folder, with what generation needs to know of it.

use std::path::Path;
use std::sync::Arc;

use super::chat_input::ChatInput;
use super::chat_template::ChatTemplate;
use super::configs::{self, GenerationConfig, TokenizerConfig};
use super::decoder::Scheme;
use super::detokenise::Detokeniser;
use super::error::TextError;
use super::table::{self, Coming};
use super::tokenizer::Tokenizer;
use crate::sampling::SamplingOptions;

/// Text to tokens and back, special tokens, and the chat template.
#[derive(Debug)]
pub(crate) struct Codec {
    tokenizer: Arc<Tokenizer>,
    scheme: Arc<Scheme>,
    table: Coming,
    eos_ids: Vec<u32>,
    sampling_defaults: SamplingOptions,
    chat_template: Option<ChatTemplate>,
}

impl Codec {
    /// Reads `tokenizer.json`, `tokenizer_config.json` and, if it is there,
    /// `generation_config.json`.
    pub(crate) fn load(folder: &Path) -> Result<Self, TextError> {
        let tokenizer_path = folder.join("tokenizer.json");
        let config_path = folder.join("tokenizer_config.json");
        let generation_path = folder.join("generation_config.json");

        let tokenizer = load_tokenizer(&tokenizer_path)?;
        let config: TokenizerConfig = configs::read(&config_path)?;
        let generation: GenerationConfig = if generation_path.exists() {
            configs::read(&generation_path)?
        } else {
            GenerationConfig::default()
        };

        let sampling_defaults = generation.sampling();
        sampling_defaults
            .validate()
            .map_err(|e| TextError::invalid(&generation_path, e.to_string()))?;

        let eos_ids = match (generation.eos_ids(), config.eos_token()) {
            ([], Some(token)) => vec![tokenizer.token_to_id(token).ok_or_else(|| {
                let reason = format!("eos_token {token:?} is not a token of tokenizer.json");
                TextError::invalid(&config_path, reason)
            })?],
            (ids, _) => ids.to_vec(),
        };
        if eos_ids.is_empty() {
            tracing::warn!(
                "neither generation_config.json nor tokenizer_config.json names an end-of-sequence \
                 token: generation will end at its token limit or a stop string only"
            );
        }
        let chat_template = config
            .chat_template
            .as_ref()
            .map(|templates| ChatTemplate::new(templates, config.special_tokens()))
            .transpose()
            .map_err(|reason| TextError::invalid(&config_path, reason))?;
        let tokenizer = Arc::new(tokenizer);
        let scheme = Arc::new(Scheme::of(&tokenizer));
        Ok(Self {
            table: table::coming(&tokenizer, &scheme),
            scheme,
            tokenizer,
            eos_ids,
            sampling_defaults,
            chat_template,
        })
    }

    /// Text to tokens. Special tokens written out in the text are taken as such;
    /// `add_special_tokens` adds those a sequence begins or ends with.
    pub(crate) fn encode(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Vec<u32>, TextError> {
        self.tokenizer
            .encode_fast(text, add_special_tokens)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| TextError::Encode(e.to_string()))
    }

    /// Tokens to text: what a [`Detokeniser`] makes of them one by one.
    pub(crate) fn decode(
        &self,
        ids: &[u32],
        skip_special_tokens: bool,
    ) -> Result<String, TextError> {
        if matches!(*self.scheme, Scheme::Other) {
            return self.decode_row(ids, skip_special_tokens);
        }
        let mut detokeniser = Detokeniser::new(self, skip_special_tokens, true);
        let mut text = String::new();
        for &id in ids {
            detokeniser.push(id, &mut text)?;
        }
        detokeniser.finish(&mut text);
        Ok(text)
    }

    /// Renders the conversation with the model's chat template.
    pub(crate) fn chat_prompt(&self, chat: &ChatInput) -> Result<String, TextError> {
        self.chat_template
            .as_ref()
            .ok_or(TextError::NoChatTemplate)?
            .render(chat)
    }

    /// Whether the model has a chat template.
    pub(crate) fn has_chat_template(&self) -> bool {
        self.chat_template.is_some()
    }

    /// Whether this token ends a generation.
    pub(crate) fn is_eos(&self, id: u32) -> bool {
        self.eos_ids.contains(&id)
    }

    /// The model's own sampling settings.
    pub(crate) fn sampling_defaults(&self) -> &SamplingOptions {
        &self.sampling_defaults
    }

    pub(super) fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The token of an id; none if it is unknown, or special and not wanted.
    pub(super) fn token(&self, id: u32, skip_special_tokens: bool) -> Option<String> {
        let token = self.tokenizer.id_to_token(id)?;
        let added = self.tokenizer.get_added_vocabulary();
        (!skip_special_tokens || !added.is_special_token(&token)).then_some(token)
    }

    /// Appends the bytes of a token: none if it is unknown, or special and not
    /// wanted, or if the scheme has none for single tokens.
    pub(super) fn push_bytes(&self, id: u32, skip_special_tokens: bool, out: &mut Vec<u8>) {
        if let Some(bytes) = self.table.bytes(id, skip_special_tokens) {
            out.extend_from_slice(bytes);
        } else if let Some(token) = self.token(id, skip_special_tokens) {
            // An id above the number of tokens: the vocabulary has gaps.
            self.scheme.token_bytes(&token, out);
        }
    }

    /// What the `tokenizers` library makes of a row of tokens.
    pub(super) fn decode_row(
        &self,
        ids: &[u32],
        skip_special_tokens: bool,
    ) -> Result<String, TextError> {
        self.tokenizer
            .decode(ids, skip_special_tokens)
            .map_err(|e| TextError::Decode(e.to_string()))
    }
}

fn load_tokenizer(path: &Path) -> Result<Tokenizer, TextError> {
    let bytes = configs::read_bytes(path)?;
    let mut tokenizer: Tokenizer = serde_json::from_slice(&bytes)
        .map_err(|e| TextError::invalid(path, format!("not a tokenizer: {e}")))?;
    // A prompt is neither cut nor filled up, whatever training had set.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|e| TextError::invalid(path, e.to_string()))?;
    Ok(tokenizer)
}

#[cfg(test)]
impl Codec {
    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::test_tokenizers::{byte_fallback, byte_level, byte_level_json};
    use super::*;

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_loads_with_its_special_tokens() {
        let codec = byte_level();
        assert!(codec.is_eos(1) && !codec.is_eos(0));
        assert!(!codec.has_chat_template());
        assert_eq!(*codec.sampling_defaults(), SamplingOptions::default());
    }

    #[test]
    fn eos_falls_back_to_the_tokenizers_own() {
        let codec = byte_fallback();
        assert_eq!(codec.eos_ids, [2]);
    }

    #[test]
    fn special_tokens_are_added_and_skipped_on_request() {
        let codec = byte_fallback();
        let with = codec.encode("Hello", true).unwrap();
        let without = codec.encode("Hello", false).unwrap();
        assert_eq!(with[0], 1);
        assert_eq!(with[1..], without[..]);
        assert_eq!(codec.decode(&with, true).unwrap(), "Hello");
        assert_eq!(codec.decode(&with, false).unwrap(), "<s> Hello");
    }

    #[test]
    fn truncation_and_padding_of_training_are_off() {
        let mut tokenizer = byte_level_json();
        tokenizer["truncation"] = json!({"direction": "Right", "max_length": 2,
            "strategy": "LongestFirst", "stride": 0});
        tokenizer["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|im_start|>"});
        let folder = folder(&[
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", json!({"eos_token": "<|im_end|>"})),
        ]);
        let codec = Codec::load(folder.path()).unwrap();
        assert_eq!(codec.encode("abcd", true).unwrap().len(), 4);
    }

    #[test]
    fn what_is_wrong_with_a_folder_is_named() {
        let error = |files: &[(&str, Value)]| {
            let folder = folder(files);
            Codec::load(folder.path()).unwrap_err().to_string()
        };
        let missing = error(&[]);
        assert!(missing.contains("tokenizer.json"), "{missing}");

        let broken = error(&[
            ("tokenizer.json", json!({"model": 3})),
            ("tokenizer_config.json", json!({})),
        ]);
        assert!(broken.contains("tokenizer.json: not a token"), "{broken}");

        let no_config = error(&[("tokenizer.json", byte_level_json())]);
        assert!(no_config.contains("tokenizer_config.json"), "{no_config}");

        let unknown_eos = error(&[
            ("tokenizer.json", byte_level_json()),
            ("tokenizer_config.json", json!({"eos_token": "</s>"})),
        ]);
        assert!(
            unknown_eos.contains("eos_token \"</s>\" is not a token"),
            "{unknown_eos}"
        );

        let sampling = error(&[
            ("tokenizer.json", byte_level_json()),
            ("tokenizer_config.json", json!({"eos_token": "<|im_end|>"})),
            (
                "generation_config.json",
                json!({"do_sample": true, "top_p": 1.5}),
            ),
        ]);
        assert!(
            sampling.contains("generation_config.json: top_p is 1.5"),
            "{sampling}"
        );

        let template = error(&[
            ("tokenizer.json", byte_level_json()),
            (
                "tokenizer_config.json",
                json!({"eos_token": "<|im_end|>", "chat_template": "{% for %}"}),
            ),
        ]);
        assert!(
            template.contains("tokenizer_config.json: chat template"),
            "{template}"
        );
    }

    #[test]
    fn without_a_template_a_chat_is_refused() {
        let error = byte_level().chat_prompt(&ChatInput::default()).unwrap_err();
        assert!(matches!(error, TextError::NoChatTemplate), "{error}");
    }
}
