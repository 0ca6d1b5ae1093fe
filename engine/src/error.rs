//! What can go wrong, in the words of the user.

use std::path::PathBuf;

/// Errors of the engine. Each names the thing, the place and, where there is
/// one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A file of the model folder cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the model folder does not hold what it must.
    #[error("{path}: {problem}")]
    Folder {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The graph cannot be loaded or run.
    #[error("{path}: {problem}")]
    Graph {
        /// The ONNX file.
        path: PathBuf,
        /// What tract or our operators said.
        problem: String,
    },
    /// An option is out of its range.
    #[error("{0}")]
    Option(String),
    /// Text cannot be turned into tokens or back.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template refused the messages.
    #[error("chat template: {0}")]
    Template(String),
    /// A token id the model does not have.
    #[error("token {id} is outside the model's vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Tokens the model has.
        vocab_size: usize,
    },
    /// There is no token to begin with.
    #[error("the prompt has no tokens: give at least one")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error(
        "{needed} tokens do not fit the context of {context_length}: shorten the prompt or \
         load the model with a longer context"
    )]
    ContextOverflow {
        /// Tokens the KV cache would have to hold.
        needed: usize,
        /// Tokens it holds.
        context_length: usize,
    },
}

impl EngineError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn folder(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Folder {
            path: path.into(),
            problem: problem.into(),
        }
    }
}

impl From<crate::sampling::SamplingError> for EngineError {
    fn from(error: crate::sampling::SamplingError) -> Self {
        Self::Option(error.to_string())
    }
}

impl From<crate::text::TextError> for EngineError {
    fn from(error: crate::text::TextError) -> Self {
        use crate::text::TextError as T;
        match error {
            T::Read { path, source } => Self::Io { path, source },
            T::Invalid { path, reason } => Self::Folder {
                path,
                problem: format!("{reason}: write the model folder again with chaski-quantize"),
            },
            T::Encode(reason) | T::Decode(reason) => Self::Tokenizer(reason),
            other => Self::Template(other.to_string()),
        }
    }
}
