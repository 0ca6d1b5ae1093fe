//! What can be wrong with a folder's text files, or with what they are given.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of the tokenizer or the chat template.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum TextError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source} (write the model folder again with chaski-quantize)", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason} (write the model folder again with chaski-quantize)", path = path.display())]
    Invalid { path: PathBuf, reason: String },
    /// The tokenizer refused a text.
    #[error("the tokenizer cannot encode the text: {0}")]
    Encode(String),
    /// The tokenizer refused tokens.
    #[error("the tokenizer cannot decode the tokens: {0}")]
    Decode(String),
    /// The model was not trained to chat.
    #[error(
        "the model has no chat template: use a plain prompt, or a model tuned to follow instructions"
    )]
    NoChatTemplate,
    /// The messages or tools are not what a template can be given.
    #[error("{0}")]
    Chat(String),
    /// The template refuses the conversation (`raise_exception`).
    #[error("{0}")]
    Raised(String),
    /// The template asks for more work than any conversation needs.
    #[error(
        "the chat template did not finish within its budget of work: send fewer or shorter messages"
    )]
    TemplateBudget,
    /// The template fails on this input.
    #[error("the model's chat template cannot be applied to this conversation: {0}")]
    Template(String),
}

impl TextError {
    pub(super) fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
